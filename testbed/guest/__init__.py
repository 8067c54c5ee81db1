"""The testbed's personal VM: Debian's cloud kernel, a busybox initramfs, and one small daemon that can be measured."""
