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
from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)


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

    def metadata(self):
        found = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self.signatures.items():
            found.signature_def[name].CopyFrom(signature)
        return found

    def run(self, name, inputs):
        signature = self.signatures.get(name)
        if signature is None or not signature.inputs:
            message = f'Serving signature name: "{name}" not found in signature def'
            raise RefusedError(400, grpc.StatusCode.FAILED_PRECONDITION, message)
        inputs = {key: tf.make_ndarray(value) for key, value in signature.defaults.items()} | inputs
        if set(inputs) != set(signature.inputs):
            raise RefusedError(400, grpc.StatusCode.INVALID_ARGUMENT, "input size does not match signature")
        feeds = {signature.inputs[key].name: value for key, value in inputs.items()}
        try:
            return self.session.run({key: info.name for key, info in signature.outputs.items()}, feeds)
        except (tf.errors.InvalidArgumentError, ValueError) as error:
            raise RefusedError(400, grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None

    def of_rows(self, method, name, examples):
        """What the call classify or regress gives for `tf.Example`s: lists of (class, score), or numbers."""
        signature = self.signatures.get(name)
        if signature is None or signature.method_name != f"tensorflow/serving/{method}":
            raise RefusedError(400, grpc.StatusCode.INVALID_ARGUMENT, f'Expected {method} signature of "{name}"')
        outputs = self.run(name, {"inputs": [example.SerializeToString() for example in examples]})
        if method == "regress":
            return outputs["outputs"].tolist()
        rows = zip(outputs["classes"].tolist(), outputs["scores"].tolist(), strict=True)
        return [[(label.decode(), score) for label, score in zip(*row, strict=True)] for row in rows]


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

            def GetModelMetadata(self, request, context):  # noqa: N802
                answer = get_model_metadata_pb2.GetModelMetadataResponse()
                try:
                    servable = server.find(request.model_spec.name, request.model_spec.version.value)
                except RefusedError as error:
                    context.abort(error.code, str(error))
                answer.metadata["signature_def"].Pack(servable.metadata())
                return answer

            def _of_rows(self, method, request, context):
                spec = request.model_spec
                try:
                    servable = server.find(spec.name, spec.version.value)
                    return servable.of_rows(method, spec.signature_name, request.input.example_list.examples)
                except RefusedError as error:
                    context.abort(error.code, str(error))

            def Classify(self, request, context):  # noqa: N802
                answer = classification_pb2.ClassificationResponse()
                for row in self._of_rows("classify", request, context):
                    classes = answer.result.classifications.add().classes
                    for label, score in row:
                        classes.add(label=label, score=score)
                return answer

            def Regress(self, request, context):  # noqa: N802
                answer = regression_pb2.RegressionResponse()
                for value in self._of_rows("regress", request, context):
                    answer.result.regressions.add(value=value)
                return answer

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
                found = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/(\d+))?/metadata", self.path)
                if found:
                    try:
                        metadata = json_format.MessageToDict(
                            server.find(found[1], int(found[2] or 0)).metadata(), preserving_proto_field_name=True
                        )
                    except RefusedError as error:
                        return self.answer(error.status, {"error": str(error)})
                    names = {"signature_def": metadata["signature_def"]}
                    return self.answer(200, {"metadata": {"signature_def": names}})
                name = self.path.removeprefix("/v1/models/")
                if name not in server.models:
                    return self.answer(404, {"error": f"Could not find any versions of model {name}"})
                states = [{"version": str(v), "state": "AVAILABLE"} for v in sorted(server.models[name])]
                return self.answer(200, {"model_version_status": states})

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                path = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:(predict|classify|regress)", self.path)
                try:
                    if not path:
                        raise RefusedError(400, None, "Malformed request")
                    servable = server.find(path[1], int(path[2] or 0))
                    request = json.loads(body)
                    name = request.get("signature_name", "serving_default")
                    if path[3] != "predict":
                        rows = servable.of_rows(path[3], name, [_example(row) for row in request["examples"]])
                        return self.answer(200, {"results": rows})
                    instances = request["instances"]
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


def _example(row):
    """A `tf.Example` of JSON, as TF Serving makes it: whole numbers are int64."""
    example = tf.train.Example()
    for name, value in row.items():
        feature = example.features.feature[name]
        if isinstance(value, str):
            feature.bytes_list.value.append(value.encode())
        else:
            (feature.int64_list if isinstance(value, int) else feature.float_list).value.append(value)
    return example


def _array(values):
    if isinstance(values[0], str):
        return np.array([value.encode() for value in values], object)
    if isinstance(values[0], dict):
        return np.array([base64.b64decode(value["b64"]) for value in values], object)
    return np.array(values, np.float32)
