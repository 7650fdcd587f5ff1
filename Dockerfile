# The gateway in a container, as the README has it.  Written from the README and not built by the project's tests.
#
#     docker build -t gateway . && docker run -p 8888:8888 -p 8888:8888/udp -v gateway:/var/lib/gateway gateway
#
# With no configuration it runs its own Redis, with its data in the volume.  compose.yaml has one with a Redis beside it.
FROM python:3.11-slim

RUN useradd --system --home-dir /var/lib/gateway --create-home gateway
COPY . /usr/src/gateway
RUN pip install --no-cache-dir '/usr/src/gateway[embedded]' && rm -rf /usr/src/gateway && twistd --version

USER gateway
ENV STATE_DIRECTORY=/var/lib/gateway
VOLUME /var/lib/gateway
EXPOSE 8888/tcp 8888/udp
# the page is on the container's own loopback; publish it with --web 0.0.0.0:8889 behind a proxy with TLS only
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8889/health/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["twistd", "-n", "--pidfile=", "gateway"]
