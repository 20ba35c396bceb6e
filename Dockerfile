# The worker's image. The same files as `make image`, which needs no Docker: image/build.py lays them out.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock && pip install --no-cache-dir packaging
COPY image image
COPY src src
RUN pip install --no-cache-dir --no-deps . && python image/build.py --rootfs /rootfs && chmod 1777 /rootfs/tmp

FROM scratch
COPY --from=build /rootfs /
ENV HOME=/var/greentic SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PATH=/usr/local/bin:/usr/bin:/bin
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/greentic-start"]
