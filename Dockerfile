# Two stages: a static binary, then an image that holds nothing else.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev gcc make perl
WORKDIR /src
COPY . .
ARG NARTHEX_REVISION=unknown
RUN NARTHEX_REVISION=${NARTHEX_REVISION} cargo build --locked --profile dist \
 && mkdir -p /rootfs/data /rootfs/etc/narthex \
 && cp target/dist/narthex /rootfs/narthex \
 && cp rules-examples/narthex.yml /rootfs/etc/narthex/narthex.yml \
 && cp -r rules-examples/rules /rootfs/etc/narthex/rules

# Static, so nothing else is needed; the certificates of public authorities come along.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build --chown=65532:65532 /rootfs/ /
USER 65532:65532
EXPOSE 9090 9093
# The only place that is written to: run with a read-only root file system and a volume here.
VOLUME /data
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s \
  CMD ["/narthex", "check", "healthy", "--url=http://127.0.0.1:9090"]
ENTRYPOINT ["/narthex"]
CMD ["--config.file=/etc/narthex/narthex.yml", "--storage.tsdb.path=/data", "--web.listen-address=0.0.0.0:9090"]
