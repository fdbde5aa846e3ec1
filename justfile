# What CI runs, in its order.
ci: fmt clippy doc test deny

fmt:
    cargo fmt --all -- --check

clippy:
    cargo clippy --locked --all-targets -- -D warnings

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

# The README's test command. `TEST_ALL=1` runs the slow and the browser tests as well.
test:
    cargo test

deny:
    cargo deny check bans licenses sources

# Not part of CI: half an hour on a machine that does nothing else. benches/README.md says what each shows.
bench:
    cargo bench --bench in_process
    cargo bench --bench lanes
    cargo bench --bench queue
    cargo bench --bench cache
    python3 benches/http_load.py
    python3 benches/files.py
    python3 benches/queue_peers.py
