"""The monitor: from frames on the wire of an EPC to events about its UEs.

    capture, live      pcap and pcapng files, AF_PACKET sockets (bpf: the kernel's filter)         frames
    frames             link layers, IP, fragments                                                  packets
    sctp, sctp_stream  associations and streams, each message once and in order                    S1AP PDUs
    s1ap, nas, gtpv2   decoders: any bytes give a message or DecodeError (aper, values)            messages
    ue_tracker         what the network is doing (identity: UE keys)                               events
    pipeline, service  all of it in one object; the same, live

Pure but for ``capture``, ``live`` and ``service``.
"""
