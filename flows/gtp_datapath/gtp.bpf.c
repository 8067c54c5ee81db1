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
 * last byte: GTP-U signalling, error indications, end markers, fragments, S1-MME, garbage. IPv4 and IPv6, inside and
 * outside, with one VLAN tag or none.
 */
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include "maps.h"
#include "packet.h"

#define GTPU_PORT 2152		/* TS 29.281 4.4.2 */
#define GTPU_G_PDU 255		/* TS 29.281 6.1 */
#define GTPU_VERSION_1 0x30	/* version 1, protocol type GTP (TS 29.281 5.1) */
#define GTPU_VERSION_MASK 0xf0
#define GTPU_E 0x04		/* an extension header follows */
#define GTPU_OPTIONAL 0x07	/* any of E, S, PN: four more octets follow */
#define MAX_EXTENSIONS 4
#define ETH_MULTICAST 0x01	/* in the first octet of a destination */
#define ICMP_DEST_UNREACH 3	/* RFC 792 */
#define ICMP_FRAG_NEEDED 4
#define ICMPV6_PKT_TOOBIG 2	/* RFC 4443 3.2 */
#define HOP_LIMIT 64

struct gtpu_header {
	__u8 flags;
	__u8 type;
	__be16 length;		/* of all that follows these eight octets */
	__be32 teid;
} __attribute__((packed));

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

static __always_inline int is_ip(const struct __sk_buff *skb, const struct packet *packet)
{
	return skb->protocol == bpf_htons(packet->version == 4 ? ETH_P_IP : ETH_P_IPV6);
}

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	__u64 left = 0, right = 0;

	__builtin_memcpy(&left, a, ETH_ALEN);
	__builtin_memcpy(&right, b, ETH_ALEN);
	return left == right;
}

/* (Of a tagged frame the kernel has moved the outer tag out of the packet.) */
static __always_inline void see_tag(const struct __sk_buff *skb, struct neighbour *seen)
{
	seen->vlan_protocol = skb->vlan_present ? skb->vlan_proto : 0;
	seen->vlan_tag = skb->vlan_present ? skb->vlan_tci : 0;
}

/* A frame from the core shows exactly how the eNodeB is addressed. */
static __always_inline void learn_from_core(struct __sk_buff *skb, const struct address *enb)
{
	struct neighbour *known, seen = {};

	if (bpf_skb_load_bytes(skb, 0, &seen.eth, sizeof(seen.eth)) || seen.eth.destination[0] & ETH_MULTICAST)
		return;
	see_tag(skb, &seen);
	known = bpf_map_lookup_elem(&neighbours, enb);
	if (!known || !same_mac(known->eth.destination, seen.eth.destination) ||
	    !same_mac(known->eth.source, seen.eth.source) || known->vlan_protocol != seen.vlan_protocol ||
	    known->vlan_tag != seen.vlan_tag)
		bpf_map_update_elem(&neighbours, enb, &seen, BPF_ANY);
}

/*
 * A frame from the eNodeB, turned round, shows it nearly as well. Only its own address counts for news: a router pair
 * that receives at a shared address (VRRP) and sends from another must not make the entry change at every packet.
 */
static __always_inline void learn_from_enb(struct __sk_buff *skb, const struct address *enb)
{
	struct neighbour *known, seen = {};
	struct ethernet_addresses eth;

	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return;
	known = bpf_map_lookup_elem(&neighbours, enb);
	if (known && same_mac(known->eth.destination, eth.source))
		return;
	__builtin_memcpy(seen.eth.destination, eth.source, ETH_ALEN);
	__builtin_memcpy(seen.eth.source, eth.destination, ETH_ALEN);
	see_tag(skb, &seen);
	bpf_map_update_elem(&neighbours, enb, &seen, BPF_ANY);
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

static __always_inline int of_ports(const struct flow *flow, const struct packet *packet, __be16 ue_port,
				    __be16 pvm_port)
{
	if (packet->fragment && flow->action != FORWARD)
		return 1;
	return (!flow->ue_port || flow->ue_port == ue_port) && (!flow->pvm_port || flow->pvm_port == pvm_port);
}

/*
 * The first of `flows` that the packet belongs to, or NULL. Ports are in the first fragment only, so that a flow which
 * names one takes no fragment at all where it is offloaded, and all where it is not: the datagram stays in one piece.
 */
static __always_inline struct flow *find_flow(struct flow *flows, __u64 number, const struct packet *packet,
					      __be16 ue_port, __be16 pvm_port)
{
	int i;

	for (i = 0; i < MAX_FLOWS; i++) {
		struct flow *flow = &flows[i];

		if (i >= number)
			break;
		if ((!flow->protocol || flow->protocol == packet->protocol) &&
		    (flow->dscp == ANY_DSCP || flow->dscp == packet->traffic_class >> 2) &&
		    of_ports(flow, packet, ue_port, pvm_port))
			return flow;
	}
	return NULL;
}

static __always_inline void carried(struct flow *flow, __u32 length, enum statistic which)
{
	int down = which == ENCAPSULATED;
	struct account *account;
	__u32 key = flow->account;

	__sync_fetch_and_add(&flow->packets, 1);
	__sync_fetch_and_add(&flow->bytes, length);
	count(which);
	if (!key)
		return;
	account = bpf_map_lookup_elem(&accounts, &key);
	if (!account)
		return;
	__sync_fetch_and_add(&account->packets[down], 1);
	__sync_fetch_and_add(&account->bytes[down], length);
}

/* Finds the rule of an offloaded packet. Sets `*inner_offset` and `*inner`; NULL for a packet that is not ours. */
static __always_inline struct flow *find_uplink(struct __sk_buff *skb, const struct packet *outer,
						__u32 *inner_offset, struct packet *inner)
{
	struct {
		struct udphdr udp;
		struct gtpu_header gtpu;
	} __attribute__((packed)) h;
	struct uplink_value *tunnel;
	struct uplink_key key;
	struct address ue;
	__u32 gtpu_end;

	if (outer->protocol != IPPROTO_UDP || outer->fragment)
		return NULL;
	if (bpf_skb_load_bytes(skb, outer->transport, &h, sizeof(h)) || h.udp.dest != bpf_htons(GTPU_PORT))
		return NULL;
	if ((h.gtpu.flags & GTPU_VERSION_MASK) != GTPU_VERSION_1 || h.gtpu.type != GTPU_G_PDU)
		return NULL;
	*inner_offset = gtpu_payload(skb, &h.gtpu, outer->transport + sizeof(h.udp));
	if (!*inner_offset || !load_packet(skb, *inner_offset, inner) || !load_ports(skb, inner))
		return NULL;

	/* Lengths that contradict each other are for the core to judge. */
	gtpu_end = outer->transport + sizeof(h) + bpf_ntohs(h.gtpu.length);
	if (*inner_offset + inner->length > gtpu_end || gtpu_end > skb->len)
		return NULL;

	key.enb = outer->source;
	key.sgw = outer->destination;
	key.pvm = inner->destination;
	key.teid = h.gtpu.teid;
	tunnel = bpf_map_lookup_elem(&uplink, &key);
	if (!tunnel)
		return NULL;
	ue = of_ue(inner->source, inner->version);
	if (!same_address(&tunnel->ue, &ue)) {
		/* Address checks are the P-GW's duty: the packet crosses like any other that is not offloaded. */
		count(FORGED);
		return NULL;
	}
	return find_flow(tunnel->flows, tunnel->count, inner, inner->source_port, inner->destination_port);
}

struct tunnel_headers {		/* what follows the IP header */
	struct udphdr udp;
	struct gtpu_header gtpu;
} __attribute__((packed));

static __always_inline __u32 tunnel_overhead(int version)
{
	return (version == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) + sizeof(struct tunnel_headers);
}

/* The largest TCP segment that a packet of this kind can carry through a tunnel over an IP of that version. */
static __always_inline __u32 largest_segment(struct __sk_buff *skb, __u32 ifindex, int inner, int outer)
{
	__u32 mtu = 0, headers = inner == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);

	bpf_check_mtu(skb, ifindex, &mtu, 0, 0);
	return mtu - tunnel_overhead(outer) - headers - sizeof(struct tcphdr);
}

SEC("tc")
int from_enb(struct __sk_buff *skb)
{
	struct settings *config = get_settings();
	struct packet outer, inner;
	struct flow *flow;
	__u32 inner_offset;
	__be16 protocol;

	if (!config)
		return TC_ACT_OK;
	if (!load_packet(skb, ETH_HLEN, &outer) || !is_ip(skb, &outer))
		return across(config->core_ifindex, WIRE_FROM_ENB);
	learn_from_enb(skb, &outer.source);

	/* A frame that segmentation offload has merged cannot lose its headers in one piece. */
	if (skb->gso_size)
		return across(config->core_ifindex, WIRE_FROM_ENB);
	flow = find_uplink(skb, &outer, &inner_offset, &inner);
	if (!flow || flow->action == PASS)
		return across(config->core_ifindex, WIRE_FROM_ENB);
	if (flow->action == DISCARD) {
		carried(flow, inner.length, DISCARDED);
		return TC_ACT_SHOT;
	}

	if (inner.protocol == IPPROTO_TCP && !inner.fragment)
		clamp_mss(skb, inner.transport,
			  largest_segment(skb, config->enb_ifindex, inner.version, outer.version));
	if (skb->vlan_present && bpf_skb_vlan_pop(skb))
		return drop(FAILED);
	if (bpf_skb_adjust_room(skb, -(__s32)(inner_offset - ETH_HLEN), BPF_ADJ_ROOM_MAC, 0))
		return drop(FAILED);
	protocol = bpf_htons(inner.version == 4 ? ETH_P_IP : ETH_P_IPV6);
	if (bpf_skb_store_bytes(skb, 0, &config->gi, sizeof(config->gi), 0) ||
	    bpf_skb_store_bytes(skb, sizeof(config->gi), &protocol, sizeof(protocol), 0))
		return drop(FAILED);
	carried(flow, inner.length, DECAPSULATED);
	return bpf_redirect(config->gi_ifindex, 0);
}

SEC("tc")
int from_core(struct __sk_buff *skb)
{
	struct settings *config = get_settings();
	struct packet packet;

	if (!config)
		return TC_ACT_OK;
	if (load_packet(skb, ETH_HLEN, &packet) && is_ip(skb, &packet))
		learn_from_core(skb, &packet.destination);
	return across(config->enb_ifindex, WIRE_FROM_CORE);
}

#define QUOTE 68		/* octets of the packet that was too big: its largest IPv4 header and eight more */

struct too_big4 {
	struct ethernet_addresses eth;
	__be16 protocol;
	struct iphdr ip;
	struct {		/* RFC 1191 4 */
		__u8 type, code;
		__sum16 check;
		__be16 unused, mtu;
		__u8 quote[QUOTE];
	} __attribute__((packed)) icmp;
} __attribute__((packed));

struct too_big6 {
	struct ethernet_addresses eth;
	__be16 protocol;
	struct ipv6hdr ip;
	struct {		/* RFC 4443 3.2 */
		__u8 type, code;
		__sum16 check;
		__be32 mtu;
		__u8 quote[QUOTE];
	} __attribute__((packed)) icmp;
} __attribute__((packed));

/*
 * Turns a packet that would not fit the tunnel into the answer to its sender. It speaks in the UE's name, so that it
 * takes the UE's way to the personal VM, wherever that is. (Its sender may have allowed fragments, but that is not to
 * be done here; what counts is that it learns the size.)
 */
static __noinline int answer_too_big4(struct __sk_buff *skb, struct settings *config, __u32 mtu)
{
	struct too_big4 answer = {};
	struct iphdr was, ip = {};

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &was, sizeof(was)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, answer.icmp.quote, QUOTE))
		return drop(FAILED);
	answer.eth = config->gi;
	answer.protocol = bpf_htons(ETH_P_IP);
	answer.icmp.type = ICMP_DEST_UNREACH;
	answer.icmp.code = ICMP_FRAG_NEEDED;
	answer.icmp.mtu = bpf_htons(mtu);
	answer.icmp.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&answer.icmp, sizeof(answer.icmp), 0));
	ip.version = 4;
	ip.ihl = sizeof(ip) / 4;
	ip.tot_len = bpf_htons(sizeof(answer) - ETH_HLEN);
	ip.ttl = HOP_LIMIT;
	ip.protocol = IPPROTO_ICMP;
	ip.saddr = was.daddr;
	ip.daddr = was.saddr;
	ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
	answer.ip = ip;
	if (bpf_skb_change_tail(skb, sizeof(answer), 0) || bpf_skb_store_bytes(skb, 0, &answer, sizeof(answer), 0))
		return drop(FAILED);
	count(TOO_BIG);
	return bpf_redirect(config->gi_ifindex, 0);
}

static __noinline int answer_too_big6(struct __sk_buff *skb, struct settings *config, __u32 mtu)
{
	struct too_big6 answer = {};
	struct pseudo_header pseudo;
	struct ipv6hdr ip;
	__u32 sum;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, answer.icmp.quote, QUOTE))
		return drop(FAILED);
	answer.eth = config->gi;
	answer.protocol = bpf_htons(ETH_P_IPV6);
	answer.ip.version = 6;
	answer.ip.payload_len = bpf_htons(sizeof(answer.icmp));
	answer.ip.nexthdr = IPPROTO_ICMPV6;
	answer.ip.hop_limit = HOP_LIMIT;
	answer.ip.daddr = ip.saddr;
	answer.ip.saddr = ip.daddr;
	answer.icmp.type = ICMPV6_PKT_TOOBIG;
	answer.icmp.mtu = bpf_htonl(mtu);
	__builtin_memcpy(&pseudo.source, &ip.daddr, sizeof(pseudo.source));
	__builtin_memcpy(&pseudo.destination, &ip.saddr, sizeof(pseudo.destination));
	pseudo.length = bpf_htonl(sizeof(answer.icmp));
	pseudo.protocol = bpf_htonl(IPPROTO_ICMPV6);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
	answer.icmp.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&answer.icmp, sizeof(answer.icmp), sum));
	if (bpf_skb_change_tail(skb, sizeof(answer), 0) || bpf_skb_store_bytes(skb, 0, &answer, sizeof(answer), 0))
		return drop(FAILED);
	count(TOO_BIG);
	return bpf_redirect(config->gi_ifindex, 0);
}

static __always_inline struct tunnel_headers tunnel_to(__be32 teid, __u32 length)
{
	struct tunnel_headers h = {};

	h.udp.source = bpf_htons(GTPU_PORT);
	h.udp.dest = bpf_htons(GTPU_PORT);
	h.udp.len = bpf_htons(length + sizeof(h));
	h.gtpu.flags = GTPU_VERSION_1;
	h.gtpu.type = GTPU_G_PDU;
	h.gtpu.length = bpf_htons(length);
	h.gtpu.teid = teid;
	return h;
}

static __noinline int encapsulate4(struct __sk_buff *skb, struct downlink_value *tunnel, struct ethernet_addresses *eth,
				   const struct packet *inner)
{
	struct {
		struct ethernet_addresses eth;
		__be16 protocol;
		struct iphdr ip;
		struct tunnel_headers tunnel;
	} __attribute__((packed)) h = {};
	struct iphdr outer = {};

	outer.version = 4;
	outer.ihl = sizeof(outer) / 4;
	outer.tos = inner->traffic_class;
	outer.tot_len = bpf_htons(inner->length + tunnel_overhead(4));
	outer.id = bpf_get_prandom_u32();
	outer.ttl = HOP_LIMIT;
	outer.protocol = IPPROTO_UDP;
	outer.saddr = tunnel->sgw.words[3];
	outer.daddr = tunnel->enb.words[3];
	outer.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&outer, sizeof(outer), 0));
	h.eth = *eth;
	h.protocol = bpf_htons(ETH_P_IP);
	h.ip = outer;
	h.tunnel = tunnel_to(tunnel->teid, inner->length);
	return bpf_skb_adjust_room(skb, tunnel_overhead(4), BPF_ADJ_ROOM_MAC,
				   BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP) ||
	       bpf_skb_store_bytes(skb, 0, &h, sizeof(h), 0);
}

/* Over IPv6 a UDP checksum of zero is not for every receiver (RFC 6936), so there is a true one. */
static __noinline int encapsulate6(struct __sk_buff *skb, struct downlink_value *tunnel, struct ethernet_addresses *eth,
				   const struct packet *inner)
{
	struct {
		struct ethernet_addresses eth;
		__be16 protocol;
		struct ipv6hdr ip;
		struct tunnel_headers tunnel;
	} __attribute__((packed)) h = {};
	__u32 length = inner->length + sizeof(h.tunnel), sum;
	struct pseudo_header pseudo;

	h.eth = *eth;
	h.protocol = bpf_htons(ETH_P_IPV6);
	h.ip.version = 6;
	h.ip.priority = inner->traffic_class >> 4;
	h.ip.flow_lbl[0] = inner->traffic_class << 4;
	h.ip.payload_len = bpf_htons(length);
	h.ip.nexthdr = IPPROTO_UDP;
	h.ip.hop_limit = HOP_LIMIT;
	__builtin_memcpy(&h.ip.saddr, &tunnel->sgw, sizeof(h.ip.saddr));
	__builtin_memcpy(&h.ip.daddr, &tunnel->enb, sizeof(h.ip.daddr));
	h.tunnel = tunnel_to(tunnel->teid, inner->length);
	pseudo.source = tunnel->sgw;
	pseudo.destination = tunnel->enb;
	pseudo.length = bpf_htonl(length);
	pseudo.protocol = bpf_htonl(IPPROTO_UDP);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&h.tunnel, sizeof(h.tunnel), sum);
	h.tunnel.udp.check = fold(sum_frame(skb, ETH_HLEN, inner->length, sum)) ?: 0xffff;
	return bpf_skb_adjust_room(skb, tunnel_overhead(6), BPF_ADJ_ROOM_MAC,
				   BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP) ||
	       bpf_skb_store_bytes(skb, 0, &h, sizeof(h), 0);
}

SEC("tc")
int from_gi(struct __sk_buff *skb)
{
	struct settings *config = get_settings();
	struct neighbour *neighbour;
	struct downlink_value *tunnel;
	struct downlink_key key;
	struct packet inner;
	__u32 overhead, mtu = 0;
	struct flow *flow;
	int version;

	/* Only IP comes here on purpose; the rest is chatter of the link itself. */
	if (!config || !load_packet(skb, ETH_HLEN, &inner) || !is_ip(skb, &inner) || !load_ports(skb, &inner))
		return TC_ACT_SHOT;
	key.ue = of_ue(inner.destination, inner.version);
	key.pvm = inner.source;
	tunnel = bpf_map_lookup_elem(&downlink, &key);
	if (!tunnel)
		return drop(NO_TUNNEL);
	flow = find_flow(tunnel->flows, tunnel->count, &inner, inner.destination_port, inner.source_port);
	if (!flow || flow->action == PASS)
		return drop(NOT_OFFLOADED);
	if (flow->action == DISCARD) {
		carried(flow, inner.length, DISCARDED);
		return TC_ACT_SHOT;
	}
	neighbour = bpf_map_lookup_elem(&neighbours, &tunnel->enb);
	if (!neighbour)
		return drop(NO_NEIGHBOUR);
	version = tunnel->enb.words[0] | tunnel->enb.words[1] ? 6 : 4;
	overhead = tunnel_overhead(version);
	if (bpf_check_mtu(skb, config->enb_ifindex, &mtu, overhead, 0))
		return inner.version == 4 ? answer_too_big4(skb, config, mtu - overhead) :
					    answer_too_big6(skb, config, mtu - overhead);
	if (inner.protocol == IPPROTO_TCP && !inner.fragment)
		clamp_mss(skb, inner.transport, largest_segment(skb, config->enb_ifindex, inner.version, version));

	if (version == 4 ? encapsulate4(skb, tunnel, &neighbour->eth, &inner) :
			   encapsulate6(skb, tunnel, &neighbour->eth, &inner))
		return drop(FAILED);
	if (neighbour->vlan_protocol && bpf_skb_vlan_push(skb, neighbour->vlan_protocol, neighbour->vlan_tag))
		return drop(FAILED);
	carried(flow, inner.length, ENCAPSULATED);
	return bpf_redirect(config->enb_ifindex, 0);
}

/* The kernel lends some helpers (bpf_check_mtu) only to programs under its own licence. */
char _license[] SEC("license") = "GPL";
