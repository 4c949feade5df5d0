#!/usr/bin/env python3
"""Makes quickstart.mmdb, the small geographic table of the demo, and asn.mmdb, its autonomous systems.

This isn't real geography. The documentation networks (RFC 5737, RFC 3849) and a handful of others
are said to be in places, so that a question "from Europe" can be asked on one machine. For real
use, take a City table in MMDB format, such as GeoLite2-City or DB-IP City Lite, and an ASN table.

    pip install mmdb_writer netaddr
    python3 make.py

The same bytes come out each time.
"""

from pathlib import Path

import mmdb_writer
from netaddr import IPNetwork, IPSet

PLACES = {
    "Frankfurt": ("EU", "DE", 50.11, 8.68, ["198.51.100.0/24", "91.10.0.0/16", "2001:db8:e0::/48"]),
    "Paris": ("EU", "FR", 48.86, 2.35, ["90.30.0.0/16", "2001:db8:e1::/48"]),
    "London": ("EU", "GB", 51.51, -0.13, ["81.130.0.0/16", "2001:db8:e2::/48"]),
    "Ashburn": ("NA", "US", 39.04, -77.49, ["192.0.2.0/24", "72.66.0.0/16", "2001:db8:a0::/48"]),
    "New York": ("NA", "US", 40.71, -74.01, ["68.160.0.0/16", "2001:db8:a1::/48"]),
    "Portland": ("NA", "US", 45.52, -122.68, ["203.0.113.0/24", "71.59.128.0/17", "2001:db8:b0::/48"]),
    "San Jose": ("NA", "US", 37.34, -121.89, ["76.126.0.0/16", "2001:db8:b1::/48"]),
    "Tokyo": ("AS", "JP", 35.68, 139.69, ["126.10.0.0/16", "2001:db8:c0::/48"]),
}
# Numbers that are kept for documentation (RFC 5398).
SYSTEMS = {
    64_500: ("Example Transit", ["198.51.100.0/24", "2001:db8:e0::/48"]),
    64_501: ("Example Access", ["203.0.113.0/24"]),
}
BUILD_EPOCH = 1_767_225_600  # 2026-01-01, so that the file never changes by itself


def writer_of(kind, description):
    return mmdb_writer.MMDBWriter(
        ip_version=6,
        ipv4_compatible=True,
        database_type=f"Sealane-Quickstart-{kind}",
        languages=["en"],
        description=description,
    )


def main():
    mmdb_writer.time.time = lambda: BUILD_EPOCH
    writer = writer_of("City", "Places for documentation networks; not real geography")
    for city, (continent, country, latitude, longitude, nets) in PLACES.items():
        record = {
            "city": {"names": {"en": city}},
            "continent": {"code": continent},
            "country": {"iso_code": country},
            "location": {"latitude": latitude, "longitude": longitude},
        }
        writer.insert_network(IPSet([IPNetwork(net) for net in nets]), record)
    writer.to_db_file(str(Path(__file__).with_name("quickstart.mmdb")))

    writer = writer_of("ASN", "Autonomous systems for documentation networks; not real ones")
    for number, (name, nets) in SYSTEMS.items():
        record = {"autonomous_system_number": number, "autonomous_system_organization": name}
        writer.insert_network(IPSet([IPNetwork(net) for net in nets]), record)
    writer.to_db_file(str(Path(__file__).with_name("asn.mmdb")))


if __name__ == "__main__":
    main()
