// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * GTP-U offload at the edge, a bump in the S1-U wire (tc, clsact ingress).
 *
 *     eNodeB --- enb [from_enb] ------------------- [from_core] core --- S-GW
 *                        |  decapsulated
 *                        v
 *                gi0 [from_gi] --- gi1 (Open vSwitch) --- personal VMs, other cloudlets
 *
 * from_enb takes the packets of known tunnels to known personal VMs out of their tunnel; from_gi puts what is meant
 * for a UE into the tunnel towards its eNodeB. Everything else crosses between `enb` and `core` as it came, to the
 * last byte: GTP-U signalling, error indications, end markers, fragments, IPv6, VLANs, S1-MME, garbage.
 *
 * The byte layout of the maps is mirrored in entries.py.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define GTPU_PORT 2152		/* TS 29.281 4.4.2 */
#define GTPU_G_PDU 255		/* TS 29.281 6.1 */
#define GTPU_VERSION_1 0x30	/* version 1, protocol type GTP (TS 29.281 5.1) */
#define GTPU_VERSION_MASK 0xf0
#define GTPU_E 0x04		/* an extension header follows */
#define GTPU_OPTIONAL 0x07	/* any of E, S, PN: four more octets follow */
#define MAX_EXTENSIONS 4
#define ETH_MULTICAST 0x01	/* in the first octet of a destination */
#define IP_FRAGMENT 0x3fff	/* more fragments, or an offset (RFC 791) */
#define MAX_UES 131072
#define MAX_NEIGHBOURS 4096

struct gtpu_header {
	__u8 flags;
	__u8 type;
	__be16 length;		/* of all that follows these eight octets */
	__be32 teid;
} __attribute__((packed));

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

struct uplink_key {
	__be32 enb_address;
	__be32 sgw_address;
	__be32 teid;
	__be32 pvm_address;
};

struct uplink_value {
	__be32 ue_address;
	__u32 unused;
	__u64 cookie;		/* whose rule it is; only user space looks at it */
	__u64 packets;
	__u64 bytes;		/* of inner packets */
};

struct downlink_key {
	__be32 ue_address;
	__be32 pvm_address;
};

struct downlink_value {
	__be32 sgw_address;
	__be32 enb_address;
	__be32 teid;
	__u32 unused;
	__u64 cookie;
	__u64 packets;
	__u64 bytes;		/* of inner packets */
};

enum statistic {
	WIRE_FROM_ENB,		/* crossed untouched */
	WIRE_FROM_CORE,
	DECAPSULATED,
	ENCAPSULATED,
	FORGED,			/* a known tunnel, but not its UE's source address: crossed untouched */
	NO_TUNNEL,		/* dropped: nothing known about this UE and personal VM */
	NO_NEIGHBOUR,		/* dropped: the eNodeB was not seen on the wire yet */
	TOO_BIG,		/* dropped: would not fit the S1-U MTU */
	FAILED,			/* dropped: the kernel could not resize the packet */
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
	__type(key, __be32);
	__type(value, struct ethernet_addresses);
} neighbours SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STATISTICS);
	__type(key, __u32);
	__type(value, __u64);
} statistics SEC(".maps");

static __always_inline void count(enum statistic which)
{
	__u32 key = which;
	__u64 *counter = bpf_map_lookup_elem(&statistics, &key);

	if (counter)
		*counter += 1;
}

static __always_inline int drop(enum statistic why)
{
	count(why);
	return TC_ACT_SHOT;
}

static __always_inline int across(__u32 ifindex, enum statistic which)
{
	if (!ifindex)
		return TC_ACT_OK;
	count(which);
	return bpf_redirect(ifindex, 0);
}

static __always_inline struct settings *get_settings(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&settings, &key);
}

/* Reads the headers of an untagged IPv4 frame. (Of a tagged one the kernel has moved the tag out of the packet.) */
static __always_inline int load_ipv4(struct __sk_buff *skb, struct ethhdr *eth, struct iphdr *ip)
{
	return skb->protocol == bpf_htons(ETH_P_IP) && !skb->vlan_present &&
	       !bpf_skb_load_bytes(skb, 0, eth, sizeof(*eth)) &&
	       !bpf_skb_load_bytes(skb, ETH_HLEN, ip, sizeof(*ip)) && ip->version == 4;
}

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	__u64 left = 0, right = 0;

	__builtin_memcpy(&left, a, ETH_ALEN);
	__builtin_memcpy(&right, b, ETH_ALEN);
	return left == right;
}

/* A frame from the core shows exactly how the eNodeB is addressed. */
static __always_inline void learn_from_core(const struct ethhdr *eth, __be32 enb_address)
{
	struct ethernet_addresses *known, seen;

	__builtin_memcpy(&seen, eth, sizeof(seen));
	known = bpf_map_lookup_elem(&neighbours, &enb_address);
	if (!known || !same_mac(known->destination, seen.destination) || !same_mac(known->source, seen.source))
		bpf_map_update_elem(&neighbours, &enb_address, &seen, BPF_ANY);
}

/*
 * A frame from the eNodeB, turned round, shows it nearly as well. Only its own address counts for news: a router pair
 * that receives at a shared address (VRRP) and sends from another must not make the entry change at every packet.
 */
static __always_inline void learn_from_enb(const struct ethhdr *eth, __be32 enb_address)
{
	struct ethernet_addresses *known, seen;

	known = bpf_map_lookup_elem(&neighbours, &enb_address);
	if (known && same_mac(known->destination, eth->h_source))
		return;
	__builtin_memcpy(seen.destination, eth->h_source, ETH_ALEN);
	__builtin_memcpy(seen.source, eth->h_dest, ETH_ALEN);
	bpf_map_update_elem(&neighbours, &enb_address, &seen, BPF_ANY);
}

/*
 * Offset of what the GTP-U header at `offset` carries, past the optional fields and extension headers
 * (TS 29.281 5.1, 5.2); 0 if they are malformed or too many.
 */
static __always_inline __u32 gtpu_payload(struct __sk_buff *skb, const struct gtpu_header *gtpu, __u32 offset)
{
	__u8 optional[4], length, next;
	int i;

	offset += sizeof(*gtpu);
	if (!(gtpu->flags & GTPU_OPTIONAL))
		return offset;
	if (bpf_skb_load_bytes(skb, offset, optional, sizeof(optional)))
		return 0;
	offset += sizeof(optional);
	next = gtpu->flags & GTPU_E ? optional[3] : 0;
	for (i = 0; i < MAX_EXTENSIONS && next; i++) {
		/* The length counts units of four octets, itself and the next type included. */
		if (bpf_skb_load_bytes(skb, offset, &length, 1) || !length)
			return 0;
		offset += length * 4;
		if (bpf_skb_load_bytes(skb, offset - 1, &next, 1))
			return 0;
	}
	return next ? 0 : offset;
}

/*
 * Finds the tunnel of an offloaded packet. Returns its entry and sets `*inner_offset` and `*inner_length`, or returns
 * NULL for a packet that is not ours.
 */
static __always_inline struct uplink_value *find_tunnel(struct __sk_buff *skb, const struct iphdr *outer,
							__u32 *inner_offset, __u32 *inner_length)
{
	__u32 udp_offset = ETH_HLEN + outer->ihl * 4;
	struct {
		struct udphdr udp;
		struct gtpu_header gtpu;
	} __attribute__((packed)) h;
	struct uplink_value *tunnel;
	struct uplink_key key;
	struct iphdr inner;
	__u32 gtpu_end;

	if (outer->ihl < 5 || outer->protocol != IPPROTO_UDP || outer->frag_off & bpf_htons(IP_FRAGMENT))
		return NULL;
	if (bpf_skb_load_bytes(skb, udp_offset, &h, sizeof(h)) || h.udp.dest != bpf_htons(GTPU_PORT))
		return NULL;
	if ((h.gtpu.flags & GTPU_VERSION_MASK) != GTPU_VERSION_1 || h.gtpu.type != GTPU_G_PDU)
		return NULL;
	*inner_offset = gtpu_payload(skb, &h.gtpu, udp_offset + sizeof(h.udp));
	if (!*inner_offset || bpf_skb_load_bytes(skb, *inner_offset, &inner, sizeof(inner)))
		return NULL;

	/* Lengths that contradict each other are for the core to judge. */
	*inner_length = bpf_ntohs(inner.tot_len);
	gtpu_end = udp_offset + sizeof(h) + bpf_ntohs(h.gtpu.length);
	if (inner.version != 4 || inner.ihl < 5 || *inner_length < inner.ihl * 4)
		return NULL;
	if (*inner_offset + *inner_length > gtpu_end || gtpu_end > skb->len)
		return NULL;

	key.enb_address = outer->saddr;
	key.sgw_address = outer->daddr;
	key.teid = h.gtpu.teid;
	key.pvm_address = inner.daddr;
	tunnel = bpf_map_lookup_elem(&uplink, &key);
	if (tunnel && tunnel->ue_address != inner.saddr) {
		/* Address checks are the P-GW's duty: the packet crosses like any other that is not offloaded. */
		count(FORGED);
		return NULL;
	}
	return tunnel;
}

SEC("tc")
int from_enb(struct __sk_buff *skb)
{
	struct settings *config = get_settings();
	struct uplink_value *tunnel;
	__u32 inner_offset, inner_length;
	struct ethhdr eth;
	struct iphdr outer;

	if (!config)
		return TC_ACT_OK;
	if (!load_ipv4(skb, &eth, &outer))
		return across(config->core_ifindex, WIRE_FROM_ENB);
	learn_from_enb(&eth, outer.saddr);

	/* A frame that segmentation offload has merged cannot lose its headers in one piece. */
	if (skb->gso_size)
		return across(config->core_ifindex, WIRE_FROM_ENB);
	tunnel = find_tunnel(skb, &outer, &inner_offset, &inner_length);
	if (!tunnel)
		return across(config->core_ifindex, WIRE_FROM_ENB);

	if (bpf_skb_adjust_room(skb, -(__s32)(inner_offset - ETH_HLEN), BPF_ADJ_ROOM_MAC, 0))
		return drop(FAILED);
	if (bpf_skb_store_bytes(skb, 0, &config->gi, sizeof(config->gi), 0))
		return drop(FAILED);
	__sync_fetch_and_add(&tunnel->packets, 1);
	__sync_fetch_and_add(&tunnel->bytes, inner_length);
	count(DECAPSULATED);
	return bpf_redirect(config->gi_ifindex, 0);
}

SEC("tc")
int from_core(struct __sk_buff *skb)
{
	struct settings *config = get_settings();
	struct ethhdr eth;
	struct iphdr ip;

	if (!config)
		return TC_ACT_OK;
	if (load_ipv4(skb, &eth, &ip) && !(eth.h_dest[0] & ETH_MULTICAST))
		learn_from_core(&eth, ip.daddr);
	return across(config->enb_ifindex, WIRE_FROM_CORE);
}

struct tunnel_header {
	struct ethernet_addresses eth;
	__be16 protocol;
	struct iphdr ip;
	struct udphdr udp;
	struct gtpu_header gtpu;
} __attribute__((packed));

#define TUNNEL_OVERHEAD ((__u32)(sizeof(struct tunnel_header) - ETH_HLEN))

static __always_inline __sum16 ipv4_checksum(struct iphdr *ip)
{
	__u32 sum = bpf_csum_diff(NULL, 0, (__be32 *)ip, sizeof(*ip), 0);

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

SEC("tc")
int from_gi(struct __sk_buff *skb)
{
	struct settings *config = get_settings();
	struct ethernet_addresses *neighbour;
	struct downlink_value *tunnel;
	struct tunnel_header h = {};
	struct downlink_key key;
	struct iphdr inner, outer = {};
	__u32 length, mtu = 0;
	struct ethhdr eth;

	/* Only IPv4 comes here on purpose; the rest is chatter of the link itself. */
	if (!config || !load_ipv4(skb, &eth, &inner))
		return TC_ACT_SHOT;
	key.ue_address = inner.daddr;
	key.pvm_address = inner.saddr;
	tunnel = bpf_map_lookup_elem(&downlink, &key);
	if (!tunnel)
		return drop(NO_TUNNEL);
	neighbour = bpf_map_lookup_elem(&neighbours, &tunnel->enb_address);
	if (!neighbour)
		return drop(NO_NEIGHBOUR);
	if (bpf_check_mtu(skb, config->enb_ifindex, &mtu, TUNNEL_OVERHEAD, 0))
		return drop(TOO_BIG);

	length = bpf_ntohs(inner.tot_len);
	outer.version = 4;
	outer.ihl = sizeof(outer) / 4;
	outer.tos = inner.tos;
	outer.tot_len = bpf_htons(length + TUNNEL_OVERHEAD);
	outer.id = bpf_get_prandom_u32();
	outer.ttl = 64;
	outer.protocol = IPPROTO_UDP;
	outer.saddr = tunnel->sgw_address;
	outer.daddr = tunnel->enb_address;
	outer.check = ipv4_checksum(&outer);

	h.eth = *neighbour;
	h.protocol = bpf_htons(ETH_P_IP);
	h.ip = outer;
	h.udp.source = bpf_htons(GTPU_PORT);
	h.udp.dest = bpf_htons(GTPU_PORT);
	h.udp.len = bpf_htons(length + sizeof(h.udp) + sizeof(h.gtpu));
	h.gtpu.flags = GTPU_VERSION_1;
	h.gtpu.type = GTPU_G_PDU;
	h.gtpu.length = inner.tot_len;
	h.gtpu.teid = tunnel->teid;

	if (bpf_skb_adjust_room(skb, TUNNEL_OVERHEAD, BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP))
		return drop(FAILED);
	if (bpf_skb_store_bytes(skb, 0, &h, sizeof(h), 0))
		return drop(FAILED);
	__sync_fetch_and_add(&tunnel->packets, 1);
	__sync_fetch_and_add(&tunnel->bytes, length);
	count(ENCAPSULATED);
	return bpf_redirect(config->enb_ifindex, 0);
}

/* The kernel lends some helpers (bpf_check_mtu) only to programs under its own licence. */
char _license[] SEC("license") = "GPL";
