# In place of mysql:8.4: the MySQL server that Debian has, with the official image's user and paths.
FROM raven-stand-in/debian:trixie-slim
RUN sed 's/trixie/sid/' /etc/apt/sources.list >/etc/apt/sources.list.d/sid.list \
 && apt-get -o Acquire::Check-Valid-Until=false update -qq \
 && groupadd -g 999 mysql && useradd -u 999 -g 999 -M -d /var/lib/mysql -s /usr/sbin/nologin mysql \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -t sid \
      mysql-server-core mysql-client-core >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && rm -rf /var/lib/mysql /etc/mysql \
 && install -d -o mysql -g mysql -m 1777 /var/lib/mysql /var/run/mysqld /var/lib/mysql-files \
 && mkdir /docker-entrypoint-initdb.d \
 && printf '[mysqld]\nskip-name-resolve\ndatadir=/var/lib/mysql\nsocket=/var/run/mysqld/mysqld.sock\nsecure-file-priv=/var/lib/mysql-files\nuser=mysql\npid-file=/var/run/mysqld/mysqld.pid\n[client]\nsocket=/var/run/mysqld/mysqld.sock\n' >/etc/my.cnf
COPY mysql-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
VOLUME /var/lib/mysql
ENTRYPOINT ["docker-entrypoint.sh"]
EXPOSE 3306
CMD ["mysqld"]
