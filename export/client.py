"""Asks a TF Serving server what is in images.

    python -m export.client photo.png --server=localhost:8500
    python -m export.client *.jpg --server=localhost:8501 --rest --model=flowers

Images are PNG, JPEG, GIF or BMP files of any size. Prints a line per image, the file and the likeliest
classes; with --json, an object per image. The exit code is 1 if an image got no answer, 2 if the server could not be
asked as the flags say.
"""

import base64
import http.client
import json
import os
import pathlib
import sys
import urllib.error
import urllib.parse
import urllib.request

from absl import flags

from darts_tf import commands, runtime

FLAGS = flags.FLAGS
SIGNATURE = "serving_bytes"


class ServerError(Exception):
    """The server did not answer the question.

    Attributes:
        image: whether that is the fault of the image, so that another may be answered.
    """

    def __init__(self, message, image=False):
        super().__init__(message)
        self.image = image


class Grpc:
    """TF Serving's gRPC API, by its official messages.

    Args:
        server: "HOST:PORT".
        model: its name there.
        version: int; None asks the newest.
        signature: takes `encoded`, returns `classes` and `probabilities`.
        timeout: seconds that an answer may take.
    """

    def __init__(self, server, model, version=None, signature=SIGNATURE, timeout=10.0):
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        self.server, self.model, self.version = server, model, version
        self.signature, self.timeout = signature, timeout
        self._channel = grpc.insecure_channel(server, [("grpc.max_receive_message_length", -1)])
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(self, encoded):
        """The likeliest classes of an image.

        Args:
            encoded: bytes of an image file.

        Returns:
            [(class, probability), ...], the likeliest first.

        Raises:
            ServerError: says why not. May be called from several threads.
        """
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = self.signature
        if self.version is not None:
            request.model_spec.version.value = self.version
        request.inputs["encoded"].CopyFrom(tf.make_tensor_proto([encoded]))
        try:
            answer = self._stub.Predict(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise self._explained(error.code(), error.details(), grpc.StatusCode) from None
        outputs = {name: tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}
        return _pairs([label.decode() for label in outputs["classes"][0]], outputs["probabilities"][0].tolist())

    def _explained(self, code, details, codes):
        if code == codes.UNAVAILABLE:
            return ServerError(f"no server answers at {self.server}: {_line(details)}")
        if code == codes.DEADLINE_EXCEEDED:
            return ServerError(f"{self.server} did not answer within {self.timeout:g} s")
        if code == codes.NOT_FOUND:
            return ServerError(f"{self.server} has no such model: {_line(details)}")
        return _refused(self.server, details)


class Rest:
    """TF Serving's REST API; arguments and methods are those of `Grpc`."""

    def __init__(self, server, model, version=None, signature=SIGNATURE, timeout=10.0):
        self.server, self.model, self.version = server, model, version
        self.signature, self.timeout = signature, timeout

    def predict(self, encoded):
        version = "" if self.version is None else f"/versions/{self.version}"
        url = f"http://{self.server}/v1/models/{urllib.parse.quote(self.model)}{version}:predict"
        instance = {"encoded": {"b64": base64.b64encode(encoded).decode()}}
        body = json.dumps({"signature_name": self.signature, "instances": [instance]}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                answer = json.load(response)["predictions"][0]
            return _pairs(answer["classes"], answer["probabilities"])
        except urllib.error.HTTPError as error:
            details = _error_of(error.read())
            if error.code == 404:
                raise ServerError(f"{self.server} has no such model: {details}") from None
            raise _refused(self.server, details) from None
        except OSError as error:
            reason = getattr(error, "reason", error)  # of URLError
            if isinstance(reason, TimeoutError):
                raise ServerError(f"{self.server} did not answer within {self.timeout:g} s") from None
            raise ServerError(f"no server answers at {self.server}: {_line(reason)}") from None
        except (ValueError, KeyError, IndexError, TypeError, http.client.HTTPException):
            raise ServerError(f"{self.server} answered, but not as TF Serving does") from None


def _pairs(classes, probabilities):
    pairs = list(zip(classes, probabilities, strict=True))
    if not pairs[0][0]:
        raise ServerError("the server cannot decode it: expected a PNG, JPEG, GIF or BMP file", image=True)
    return pairs


def _refused(server, details):
    details = _line(details)
    if "decoded" in details:
        return ServerError("the server cannot decode it: expected a PNG, JPEG, GIF or BMP file", image=True)
    return ServerError(f"{server} refused the request: {details}")


def _error_of(body):
    try:
        return _line(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return _line(body.decode(errors="replace"))


def _line(text):
    return " ".join(str(text).split())[:300]


def import_grpc():
    """Imports what `Grpc` needs, of which TensorFlow has much to say."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with runtime.quiet():
            import tensorflow  # noqa: F401
            import tensorflow_serving.apis.prediction_service_pb2_grpc  # noqa: F401
    except ImportError as error:
        message = f"{error.name} is not installed: pip install 'darts-tf[export]', or ask with --rest."
        raise commands.UsageError(message) from None


def main(argv):
    if FLAGS.rest and FLAGS.grpc:
        raise commands.UsageError("--rest and --grpc given: expected one of them.")
    host, _, port = FLAGS.server.rpartition(":")
    if not host or not port.isdecimal():
        raise commands.UsageError(f"--server={FLAGS.server}: expected HOST:PORT.")
    if not FLAGS.rest:
        import_grpc()
    client = (Rest if FLAGS.rest else Grpc)(FLAGS.server, FLAGS.model, FLAGS.version, FLAGS.signature, FLAGS.timeout)
    failed = False
    for name in argv[1:]:
        try:
            encoded = pathlib.Path(name).read_bytes()
            answer = client.predict(encoded)
            answer = answer[: FLAGS.top_k]
            text = ", ".join(f"{label} {value:.1%}" for label, value in answer)
            commands.result(f"{name}  {text}", image=name, classes=dict(answer))
        except OSError as error:
            print(f"error: {name}: {error.strerror}", file=sys.stderr)
            failed = True
        except ServerError as error:
            if not error.image:
                raise commands.UsageError(f"{error}; --server={FLAGS.server} --model={FLAGS.model}") from None
            print(f"error: {name}: {error}", file=sys.stderr)
            failed = True
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    with commands.topic("Request"):
        flags.DEFINE_string(
            "server", "localhost:8500", "HOST:PORT; TF Serving listens on 8500 for gRPC, 8501 for REST."
        )
        flags.DEFINE_string("model", "model", "The model's name on the server.")
        flags.DEFINE_integer("version", None, "The model's version. Default: the newest.", lower_bound=1)
        flags.DEFINE_boolean("rest", False, "Use the REST API.")
        flags.DEFINE_boolean("grpc", False, "Use the gRPC API, as without a flag.")
        flags.DEFINE_string("signature", SIGNATURE, "A signature that takes encoded images.")
        flags.DEFINE_float("timeout", 10.0, "Seconds that an answer may take.", lower_bound=0.001)
        flags.DEFINE_integer("top_k", 1, "Classes to print per image, as far as the model returns them.", lower_bound=1)
    commands.run(main, arguments=["IMAGE", "..."])
