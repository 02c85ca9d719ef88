# Stands in for TensorFlow Serving's image where no registry is reachable: the embedded server under its command's name.
# As in the real server, nothing handles SIGTERM: it ends the server at once, without a word to its clients. With
# ON_TERM="trap '' TERM" the server ignores SIGTERM, as TensorFlow Serving does when it is process 1.
ARG PRODUCT
FROM ${PRODUCT}
ARG ON_TERM=""
LABEL mnist-tfx.stand-in=true
USER 0
RUN printf '#!/bin/sh\n%s\npython -m serving.model_server --bind_address=0.0.0.0 --allow_reload=true "$@" &\nwait "$!"\n' "$ON_TERM" \
      > /usr/local/bin/tensorflow_model_server \
 && chmod 755 /usr/local/bin/tensorflow_model_server
