# In place of eclipse-mosquitto:2.1.2-alpine: Debian's own 2.1, with the official image's user and paths.
FROM raven-stand-in/debian:trixie-slim
RUN sed 's/trixie/sid/' /etc/apt/sources.list >/etc/apt/sources.list.d/sid.list \
 && apt-get -o Acquire::Check-Valid-Until=false update -qq \
 && groupadd -g 1883 mosquitto && useradd -u 1883 -g 1883 -M -d /var/empty -s /usr/sbin/nologin mosquitto \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -t sid \
      mosquitto mosquitto-clients >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && ln -sf /usr/lib/*-linux-gnu/mosquitto/*.so /usr/lib/ \
 && install -d -o mosquitto -g mosquitto /mosquitto/config /mosquitto/data /mosquitto/log
VOLUME ["/mosquitto/data", "/mosquitto/log"]
EXPOSE 1883
CMD ["/usr/sbin/mosquitto", "-c", "/mosquitto/config/mosquitto.conf"]
