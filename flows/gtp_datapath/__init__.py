"""The tc-BPF program on the S1-U wire: source, build, attachment and maps."""
