/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the programs are told and what they have to tell. The byte layout is mirrored in entries.py. */
#ifndef MOBISCUD_MAPS_H
#define MOBISCUD_MAPS_H

#include "packet.h"

#define ANY_DSCP 0xff
#define MAX_FLOWS 8		/* of one UE and personal VM */
#define MAX_UES 131072
#define MAX_NEIGHBOURS 4096
#define MAX_ACCOUNTS 131072

struct ethernet_addresses {
	__u8 destination[ETH_ALEN];
	__u8 source[ETH_ALEN];
};

/* Where the wires are. All zero: not set up yet, packets take their normal way. */
struct settings {
	__u32 enb_ifindex;
	__u32 core_ifindex;
	__u32 gi_ifindex;
	struct ethernet_addresses gi;	/* of frames towards Open vSwitch */
};

/* What becomes of a flow. */
enum action {
	FORWARD,		/* out of the tunnel and into it */
	PASS,			/* crosses untouched */
	DISCARD,
};

/* Which packets between a UE and its personal VM, and what was carried of them. */
struct flow {
	__u8 protocol;		/* 0: any */
	__u8 dscp;		/* ANY_DSCP, or six bits */
	__be16 ue_port;		/* 0: any */
	__be16 pvm_port;
	__u8 action;
	__u8 unused;
	__u64 packets;
	__u64 bytes;		/* of inner packets */
	__u32 account;		/* 0: none */
	__u32 unused2;
};

/*
 * What was carried of one bearer under one rule: what an operator charges by. Many entries share one, and it outlives
 * them: a rule that is replaced, or whose UE goes to another eNodeB, loses no packet of the account. What it is about
 * is for user space alone, so that a program that starts anew finds everything here.
 */
struct account {
	__u64 packets[2];	/* up, down */
	__u64 bytes[2];
	__u64 since;		/* ns since the epoch; 0: the account is free */
	char ue[24];
	char rule[32];
	struct address sgw;
	__be32 teid;
	__u32 unused;
};

struct uplink_key {
	struct address enb;
	struct address sgw;
	struct address pvm;
	__be32 teid;
};

struct uplink_value {
	struct address ue;
	__u64 cookie;		/* whose rule it is; only user space looks at it */
	__u64 count;
	struct flow flows[MAX_FLOWS];
};

struct downlink_key {
	struct address ue;
	struct address pvm;
};

struct downlink_value {
	struct address sgw;
	struct address enb;
	__be32 teid;
	__be32 bearer;		/* the S-GW's TEID of it, for accounts; only user space looks at it */
	__u64 cookie;
	__u64 count;
	struct flow flows[MAX_FLOWS];
};

/* How the wire addresses its frames towards a node on the eNodeB side. */
struct neighbour {
	struct ethernet_addresses eth;
	__u16 vlan_protocol;	/* 0: untagged */
	__u16 vlan_tag;
};

enum statistic {
	WIRE_FROM_ENB,		/* crossed untouched */
	WIRE_FROM_CORE,
	DECAPSULATED,
	ENCAPSULATED,
	FORGED,			/* a known tunnel, but not its UE's source address: crossed untouched */
	NO_TUNNEL,		/* dropped: nothing known about this UE and personal VM */
	NO_NEIGHBOUR,		/* dropped: the eNodeB was not seen on the wire yet */
	TOO_BIG,		/* would not fit the S1-U MTU: the sender was told */
	FAILED,			/* dropped: the kernel could not resize the packet */
	NOT_OFFLOADED,		/* dropped: to the UE, but of no flow that is offloaded */
	DISCARDED,		/* dropped: of a flow that shall be */
	STATISTICS,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_UES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct uplink_key);
	__type(value, struct uplink_value);
} uplink SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_UES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct downlink_key);
	__type(value, struct downlink_value);
} downlink SEC(".maps");

/*
 * How the wire addresses its frames towards each node on the eNodeB side. The cloudlet has no address of its own on
 * S1-U, so what it sends must look like what the core sends.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_NEIGHBOURS);
	__type(key, struct address);
	__type(value, struct neighbour);
} neighbours SEC(".maps");

/* User space has it in its memory: reading it costs no call. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_ACCOUNTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct account);
} accounts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STATISTICS);
	__type(key, __u32);
	__type(value, __u64);
} statistics SEC(".maps");

#endif
