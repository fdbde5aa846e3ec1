FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# The dependencies alone, with a stub for every target that Cargo.toml names: a layer that stays until one changes.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/it benches \
    && touch src/lib.rs \
    && for main in src/main.rs tests/it/main.rs benches/server.rs benches/in_process.rs benches/lanes.rs; do \
        echo 'fn main() {}' >$main; \
    done \
    && cargo build --release --locked --bin houseboat
COPY config config
COPY migrations migrations
COPY templates templates
COPY assets assets
COPY README.md ./
COPY src src
# Cargo goes by the time of a file, and these may be older than their stubs.
RUN touch src/lib.rs src/main.rs && cargo build --release --locked --bin houseboat

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=litestream/litestream:0.5.17 /usr/local/bin/litestream /usr/local/bin/litestream
COPY --from=build /src/target/release/houseboat /usr/local/bin/houseboat
# No VOLUME: a volume without a name would look as if the data stayed.
RUN install --directory --owner=10001 --group=10001 /data
ENV HOUSEBOAT_ENV=production \
    HOUSEBOAT_DATABASE__PATH=/data/site.sqlite3 \
    HOUSEBOAT_CACHE__PATH=/data/cache.sqlite3 \
    HOST=0.0.0.0 \
    PORT=8000
# A file config/production.toml may be put here.
WORKDIR /site
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# All four values, which Coolify reads from here. Three failures and Traefik's 2 s fit into handover.linger_ms.
HEALTHCHECK --interval=2s --timeout=2s --start-period=5s --retries=3 CMD ["houseboat", "health"]
ENTRYPOINT ["houseboat"]
CMD ["start"]
