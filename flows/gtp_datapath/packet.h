/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What a packet says of itself, IPv4 and IPv6 alike, and the checksums of what we say. */
#ifndef MOBISCUD_PACKET_H
#define MOBISCUD_PACKET_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IP_FRAGMENT 0x3fff	/* more fragments, or an offset (RFC 791) */
#define IPV6_FRAGMENT 44	/* RFC 8200 4.5 */
#define TCP_SYN 0x02		/* in octet 13 of the header (RFC 9293 3.1) */
#define TCP_END_OF_OPTIONS 0
#define TCP_NO_OPERATION 1
#define TCP_MSS 2
#define MAX_OPTIONS 40		/* octets of TCP options, each an option of its own at the worst */
#define CHUNK 64

/* An IPv4 address is ::ffff:a.b.c.d (RFC 4291 2.5.5.2). */
struct address {
	__be32 words[4];
};

struct packet {
	struct address source, destination;
	__u32 length;		/* from the IP header to the end */
	__u32 transport;	/* where its header begins in the frame */
	__be16 source_port, destination_port;	/* 0: none, or in another fragment */
	__u8 version, protocol, traffic_class, fragment;
};

static __always_inline void map_ipv4(struct address *to, __be32 address)
{
	to->words[0] = to->words[1] = 0;
	to->words[2] = bpf_htonl(0xffff);
	to->words[3] = address;
}

static __always_inline int same_address(const struct address *a, const struct address *b)
{
	return a->words[0] == b->words[0] && a->words[1] == b->words[1] && a->words[2] == b->words[2] &&
	       a->words[3] == b->words[3];
}

/* A UE has a whole /64 and makes the rest of its IPv6 address as it likes (TS 23.401 5.3.1.2.2). */
static __always_inline struct address of_ue(struct address address, __u8 version)
{
	if (version == 6)
		address.words[2] = address.words[3] = 0;
	return address;
}

static __always_inline int load_ports(struct __sk_buff *skb, struct packet *packet)
{
	__be16 ports[2];

	if (packet->fragment || (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP &&
				 packet->protocol != IPPROTO_SCTP))
		return 1;
	if (bpf_skb_load_bytes(skb, packet->transport, ports, sizeof(ports)))
		return 0;
	packet->source_port = ports[0];
	packet->destination_port = ports[1];
	return 1;
}

/* Reads the headers of the IP packet at `offset`. False: it is none, or lengths in it contradict each other. */
static __always_inline int load_packet(struct __sk_buff *skb, __u32 offset, struct packet *packet)
{
	struct ipv6hdr ip6;
	struct iphdr ip;
	__u8 first;

	__builtin_memset(packet, 0, sizeof(*packet));
	if (bpf_skb_load_bytes(skb, offset, &first, 1))
		return 0;
	packet->version = first >> 4;
	if (packet->version == 4) {
		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
			return 0;
		map_ipv4(&packet->source, ip.saddr);
		map_ipv4(&packet->destination, ip.daddr);
		packet->length = bpf_ntohs(ip.tot_len);
		packet->transport = offset + ip.ihl * 4;
		packet->protocol = ip.protocol;
		packet->traffic_class = ip.tos;
		packet->fragment = !!(ip.frag_off & bpf_htons(IP_FRAGMENT));
		return ip.ihl >= 5 && packet->length >= ip.ihl * 4;
	}
	if (packet->version == 6) {
		if (bpf_skb_load_bytes(skb, offset, &ip6, sizeof(ip6)))
			return 0;
		__builtin_memcpy(&packet->source, &ip6.saddr, sizeof(packet->source));
		__builtin_memcpy(&packet->destination, &ip6.daddr, sizeof(packet->destination));
		packet->length = sizeof(ip6) + bpf_ntohs(ip6.payload_len);
		packet->transport = offset + sizeof(ip6);
		packet->protocol = ip6.nexthdr;
		packet->traffic_class = ip6.priority << 4 | ip6.flow_lbl[0] >> 4;
		packet->fragment = ip6.nexthdr == IPV6_FRAGMENT;
		return 1;
	}
	return 0;
}

static __always_inline __sum16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

struct pseudo_header {		/* RFC 8200 8.1 */
	struct address source, destination;
	__be32 length;
	__be32 protocol;
};

/* The checksum of what reaches from `offset` to the end of the frame; `length` octets. */
static __always_inline __u32 sum_frame(struct __sk_buff *skb, __u32 offset, __u32 length, __u32 sum)
{
	__u32 chunk[CHUNK / 4];
	__u32 rest = length;
	int i;

	for (i = 0; i < 0x10000 / CHUNK && rest >= CHUNK; i++, rest -= CHUNK, offset += CHUNK) {
		if (bpf_skb_load_bytes(skb, offset, chunk, CHUNK))
			return sum;
		sum = bpf_csum_diff(NULL, 0, chunk, CHUNK, sum);
	}
	rest &= CHUNK - 1;
	if (rest) {
		__builtin_memset(chunk, 0, sizeof(chunk));
		if (!bpf_skb_load_bytes(skb, offset, chunk, rest))
			sum = bpf_csum_diff(NULL, 0, chunk, CHUNK, sum);
	}
	return sum;
}

/*
 * Lowers the segment size that a TCP SYN announces to `limit` (RFC 9293 3.7.1), so that no segment meets a tunnel that
 * is too narrow for it. A SYN without the option announces 536, which fits everywhere.
 */
static __noinline int clamp_mss(struct __sk_buff *skb, __u32 transport, __u32 limit)
{
	__u8 flags, words, kind, length;
	__u32 offset, end;
	__be16 announced, lower = bpf_htons(limit);
	int i;

	if (bpf_skb_load_bytes(skb, transport + 12, &words, 1) || bpf_skb_load_bytes(skb, transport + 13, &flags, 1) ||
	    !(flags & TCP_SYN))
		return 0;
	offset = transport + sizeof(struct tcphdr);
	end = transport + (words >> 4) * 4;
	for (i = 0; i < MAX_OPTIONS && offset + 4 <= end; i++) {
		if (bpf_skb_load_bytes(skb, offset, &kind, 1) || kind == TCP_END_OF_OPTIONS)
			return 0;
		if (kind == TCP_NO_OPERATION) {
			offset++;
			continue;
		}
		if (bpf_skb_load_bytes(skb, offset + 1, &length, 1) || length < 2)
			return 0;
		if (kind != TCP_MSS) {
			offset += length;
			continue;
		}
		if (bpf_skb_load_bytes(skb, offset + 2, &announced, 2) || bpf_ntohs(announced) <= limit)
			return 0;
		bpf_skb_store_bytes(skb, offset + 2, &lower, 2, 0);
		if ((offset - transport) & 1) {	/* it straddles two words of the sum */
			announced = __builtin_bswap16(announced);
			lower = __builtin_bswap16(lower);
		}
		return bpf_l4_csum_replace(skb, transport + 16, announced, lower, 2);
	}
	return 0;
}

#endif
