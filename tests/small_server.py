"""A small TF Serving: PredictionService and the REST API over SavedModels, loaded as the real server loads them."""

import base64
import concurrent.futures
import http.server
import json
import pathlib
import re
import threading

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class RefusedError(Exception):
    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.code = status, code


class Servable:
    """One version of a model."""

    def __init__(self, folder):
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.session = tf.compat.v1.Session(graph=self.graph)
            meta = tf.compat.v1.saved_model.loader.load(self.session, ["serve"], str(folder))
        self.signatures = dict(meta.signature_def)

    def run(self, name, inputs):
        signature = self.signatures.get(name)
        if signature is None or not signature.inputs:
            message = f'Serving signature name: "{name}" not found in signature def'
            raise RefusedError(400, grpc.StatusCode.FAILED_PRECONDITION, message)
        if set(inputs) != set(signature.inputs):
            raise RefusedError(400, grpc.StatusCode.INVALID_ARGUMENT, "input size does not match signature")
        feeds = {signature.inputs[key].name: value for key, value in inputs.items()}
        try:
            return self.session.run({key: info.name for key, info in signature.outputs.items()}, feeds)
        except (tf.errors.InvalidArgumentError, ValueError) as error:
            raise RefusedError(400, grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None


class Server:
    """Serves every model in a folder on two free ports of this machine; a context manager.

    Attributes:
        grpc, rest: "localhost:PORT".
    """

    def __init__(self, folder):
        self.models = {}
        for path in pathlib.Path(folder).glob("*/*/saved_model.pb"):
            if path.parent.name.isdecimal():
                self.models.setdefault(path.parent.parent.name, {})[int(path.parent.name)] = Servable(path.parent)

    def find(self, name, version=None):
        versions = self.models.get(name, {})
        found = versions.get(version or max(versions, default=0))
        if found is None:
            raise RefusedError(404, grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({name})")
        return found

    def __enter__(self):
        server = self

        class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
            def Predict(self, request, context):  # noqa: N802
                spec = request.model_spec
                try:
                    servable = server.find(spec.name, spec.version.value)
                    inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
                    outputs = servable.run(spec.signature_name or "serving_default", inputs)
                except RefusedError as error:
                    context.abort(error.code, str(error))
                return predict_pb2.PredictResponse(
                    model_spec=spec, outputs={key: tf.make_tensor_proto(value) for key, value in outputs.items()}
                )

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, content):
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                name = self.path.removeprefix("/v1/models/")
                if name not in server.models:
                    return self.answer(404, {"error": f"Could not find any versions of model {name}"})
                states = [{"version": str(v), "state": "AVAILABLE"} for v in sorted(server.models[name])]
                return self.answer(200, {"model_version_status": states})

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                path = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict", self.path)
                try:
                    if not path:
                        raise RefusedError(400, None, "Malformed request")
                    servable = server.find(path[1], int(path[2] or 0))
                    request = json.loads(body)
                    instances = request["instances"]
                    name = request.get("signature_name", "serving_default")
                    keys = instances[0] if isinstance(instances[0], dict) and "b64" not in instances[0] else None
                    only = next(iter(servable.signatures[name].inputs)) if name in servable.signatures else "x"
                    rows = instances if keys else [{only: instance} for instance in instances]
                    outputs = servable.run(name, {key: _array([row[key] for row in rows]) for key in rows[0]})
                except RefusedError as error:
                    return self.answer(error.status, {"error": str(error)})
                plain = {key: np.char.decode(v.astype("S")) if v.dtype == object else v for key, v in outputs.items()}
                predictions = [{key: v[i].tolist() for key, v in plain.items()} for i in range(len(rows))]
                return self.answer(200, {"predictions": predictions})

        class Threaded(http.server.ThreadingHTTPServer):
            request_queue_size = 256

        self._grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), self._grpc)
        self.grpc = f"localhost:{self._grpc.add_insecure_port('localhost:0')}"
        self._grpc.start()
        self._rest = Threaded(("localhost", 0), Handler)
        self.rest = f"localhost:{self._rest.server_address[1]}"
        threading.Thread(target=self._rest.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._grpc.stop(None)
        self._rest.shutdown()
        self._rest.server_close()


def _array(values):
    if isinstance(values[0], dict):
        return np.array([base64.b64decode(value["b64"]) for value in values], object)
    return np.array(values, np.float32)
