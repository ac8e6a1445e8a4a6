# In place of mongo:8.0: SecantusDB, which speaks MongoDB's protocol, with the official first start.
FROM python:3.13-slim-trixie
RUN groupadd -g 999 mongodb && useradd -u 999 -g 999 -M -d /data/db -s /usr/sbin/nologin mongodb \
 && install -d -o mongodb -g mongodb /data/db /data/configdb && mkdir /docker-entrypoint-initdb.d
# From 2.4 on NumPy asks for cmpxchg16b, which the processor of tests/machine does not have.
RUN python -m venv /opt/mongo \
 && /opt/mongo/bin/pip install -q --no-cache-dir secantusdb pymongo 'numpy<2.4'
ENV HOME=/data/db
COPY mongod.py mongosh.py mongo-entrypoint.sh /opt/mongo/bin/
RUN ln -s /opt/mongo/bin/mongo-entrypoint.sh /usr/local/bin/docker-entrypoint.sh \
 && for name in mongod mongosh; do \
      printf '#!/bin/sh\nexec /opt/mongo/bin/python /opt/mongo/bin/%s.py "$@"\n' $name >/usr/local/bin/$name; \
      chmod +x /usr/local/bin/$name; \
    done
VOLUME ["/data/db", "/data/configdb"]
EXPOSE 27017
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["mongod"]
