# The add-on for Home Assistant OS: reader, writer, recorder and dashboard in one image.
FROM python:3.13-slim-trixie AS build
RUN python -m venv /opt/build && python -m venv --without-pip /opt/raven
WORKDIR /src
COPY requirements requirements
RUN /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt
RUN /opt/build/bin/pip --python /opt/raven install --no-cache-dir --only-binary :all: --require-hashes \
      -r requirements/reader.txt -r requirements/sql-writer.txt \
      -r requirements/mongo-recorder.txt -r requirements/dashboard.txt
COPY libs libs
COPY services services
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation -w /wheels \
      ./libs/* services/reader services/sql-writer services/mongo-recorder services/dashboard \
 && /opt/build/bin/pip --python /opt/raven install --no-cache-dir --no-index -f /wheels \
      raven-reader raven-sql-writer raven-mongo-recorder raven-dashboard

FROM python:3.13-slim-trixie
# What glibc keeps for each thread takes a megabyte, and more with each hour.
ENV PATH=/opt/raven/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    GLIBC_TUNABLES=glibc.malloc.tcache_count=0
COPY --from=build /opt/raven /opt/raven
COPY deploy/homeassistant/run.py /run.py
CMD ["python", "/run.py"]
