# A stand-in for the Deep Learning Container that our images build on: Debian's Python in /opt/venv, which is where the
# real one has its own, and torch. It has no CUDA, no Amazon Linux and none of the real image's other packages.
FROM scratch

ADD debian.tar /

ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

RUN python3 -m venv /opt/venv

COPY requirements-base.txt /tmp/requirements-base.txt
RUN python -m pip install --no-cache-dir --disable-pip-version-check -r /tmp/requirements-base.txt
