# A static binary in an image with nothing else but certificates.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The target is named so that the flag does not reach build scripts.
RUN RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --profile dist --target "$(uname -m)-unknown-linux-gnu" \
 && cp target/*-unknown-linux-gnu/dist/rusuban /rusuban \
 && mkdir -p /home-folder/jobs /home-folder/data /empty/tmp \
 && chmod 1777 /empty/tmp \
 && cp jobs/self-backup.toml jobs/disk-report.toml /home-folder/jobs/

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /usr/share/zoneinfo /usr/share/zoneinfo
COPY --from=build /rusuban /rusuban
# /tmp, where everybody may write: SQLite does, and so may you with what you restore.
COPY --from=build /empty/ /
COPY --from=build --chown=65532:65532 /home-folder /rusuban-home
USER 65532:65532
ENV RUSUBAN_HOME=/rusuban-home
VOLUME /rusuban-home
ENTRYPOINT ["/rusuban"]
CMD ["serve"]
