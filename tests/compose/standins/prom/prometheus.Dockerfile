# In place of prom/prometheus:v3.5.0: Debian's own Prometheus 3, with the official image's user and paths.
FROM raven-stand-in/debian:trixie-slim
RUN sed 's/trixie/sid/' /etc/apt/sources.list >/etc/apt/sources.list.d/sid.list \
 && apt-get -o Acquire::Check-Valid-Until=false update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -t sid prometheus promtool >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/lib/prometheus \
 && install -d -o nobody -g nogroup /prometheus
USER nobody
WORKDIR /prometheus
VOLUME /prometheus
EXPOSE 9090
ENTRYPOINT ["/bin/prometheus"]
