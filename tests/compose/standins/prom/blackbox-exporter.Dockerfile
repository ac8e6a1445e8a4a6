# In place of prom/blackbox-exporter:v0.27.0: the Blackbox exporter that Debian has, under the official image's name.
FROM raven-stand-in/debian:trixie-slim
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus-blackbox-exporter >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && ln -s prometheus-blackbox-exporter /bin/blackbox_exporter
USER nobody
ENTRYPOINT ["/bin/blackbox_exporter"]
