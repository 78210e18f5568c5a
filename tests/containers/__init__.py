"""``docker-compose.yml`` and the image, on a real Docker Engine.

The engine is the tests' own: it runs in a scratch folder, leaves the machine's firewall and forwarding alone, and ends
with them (``engine``). What an image registry would give is made by ``prepare.sh``: a base image in place of
``python:3.11-slim-bookworm``, and from it a PostgreSQL (``postgres/``). Published ports are free ones.

Not shown: the official images themselves, and a build through Docker's own bridge (``engine.yml``).
"""
