# Built in stages; the last holds the program, the libraries it links, certificates and nothing else:
# no shell, no package manager, not root. docs/CONTAINER.md says which of these steps were run, and how.

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --locked --release -p sealane

FROM debian:bookworm-slim AS root
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/sealane /usr/local/bin/sealane
COPY docker/assemble-root.sh /assemble-root.sh
RUN sh /assemble-root.sh /usr/local/bin/sealane /root-fs

FROM scratch
COPY --from=root /root-fs/ /
USER 65532:65532
# In a container the ports are free for all: bind them high and publish them as 53, 80 and 443,
# or grant NET_BIND_SERVICE.
EXPOSE 53/udp 53/tcp 80/tcp 443/tcp
VOLUME ["/var/lib/sealane"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --retries=3 --start-period=15s \
  CMD ["/usr/local/bin/sealane", "health"]
ENTRYPOINT ["/usr/local/bin/sealane"]
CMD ["run", "--config", "/etc/sealane/sealane.yaml"]
