# ica_unet_jax on CPUs, with the fast runtime. In the folder of this file:
#   docker build -t ica-unet-jax .
#   docker run --rm -v "$PWD:/data" -u "$(id -u):$(id -g)" ica-unet-jax predict --input=/data/cine.nii.gz
FROM python:3.12-slim
COPY setup.py pyproject.toml README.md LICENSE /src/
COPY ica_unet_jax /src/ica_unet_jax
RUN pip install --no-cache-dir "/src[realtime]" && rm -r /src
WORKDIR /data
ENTRYPOINT ["ica-unet-jax"]
CMD ["--help"]
