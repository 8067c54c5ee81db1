#!/bin/sh
# Certificates for migrations over TLS (qemu+tls://), made with openssl:
#
#   scripts/make-certificates.sh ca DIR                      a certification authority in DIR, once for a site
#   scripts/make-certificates.sh host DIR NAME ADDRESS...    a host's certificate, signed by it
#
# A host's files are left in DIR/hosts/NAME, laid out as they belong below /etc/pki on that host: libvirt's own and
# those of its QEMUs, which are the same. DIR/ca.key is what to keep secret; it is needed on no host.
set -eu
umask 077
DAYS=${DAYS:-825}

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }

make_ca() {
    directory=$1
    mkdir -p "$directory"
    [ ! -e "$directory/ca.key" ] || { echo "$directory/ca.key is there already" >&2; exit 1; }
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/O=MobiScud/CN=MobiScud CA" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout "$directory/ca.key" -out "$directory/ca.pem" 2>/dev/null
}

make_host() {
    directory=$1 name=$2
    shift 2
    host=$directory/hosts/$name
    rm -rf "$host"
    mkdir -p "$host/CA" "$host/libvirt/private" "$host/qemu"
    names="DNS:$name"
    for address in "$@"; do names="$names,IP:$address"; done
    cat >"$host/extensions" <<EXTENSIONS
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature,keyEncipherment
extendedKeyUsage=serverAuth,clientAuth
subjectAltName=$names
EXTENSIONS
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/O=MobiScud/CN=$name" \
        -keyout "$host/key" -out "$host/request" 2>/dev/null
    openssl x509 -req -in "$host/request" -CA "$directory/ca.pem" -CAkey "$directory/ca.key" -days "$DAYS" \
        -set_serial "0x$(openssl rand -hex 16)" -extfile "$host/extensions" -out "$host/certificate" 2>/dev/null
    cp "$directory/ca.pem" "$host/CA/cacert.pem"
    cp "$directory/ca.pem" "$host/qemu/ca-cert.pem"
    for role in server client; do
        cp "$host/certificate" "$host/libvirt/${role}cert.pem"
        cp "$host/key" "$host/libvirt/private/${role}key.pem"
        cp "$host/certificate" "$host/qemu/$role-cert.pem"
        cp "$host/key" "$host/qemu/$role-key.pem"
    done
    rm "$host/extensions" "$host/request" "$host/key" "$host/certificate"
    chmod 755 "$host" "$host/CA" "$host/libvirt" "$host/qemu"
    chmod 644 "$host/CA/cacert.pem" "$host"/libvirt/*cert.pem "$host"/qemu/*-cert.pem
}

case ${1:-} in
    ca) [ $# -eq 2 ] || usage; make_ca "$2" ;;
    host) [ $# -ge 4 ] || usage; shift; make_host "$@" ;;
    *) usage ;;
esac
