"""Asks a TF Serving server what is in images, how likely texts are and how they go on, or what rows of a table are.

    python -m export.client photo.png --server=localhost:8500
    python -m export.client *.jpg --server=localhost:8501 --rest --model=flowers
    python -m export.client --text="The cat sat on" --text="The cat" --model=book
    python -m export.client --row='{"age": 41, "city": "Basel"}' --model=prices

Images are PNG, JPEG, GIF or BMP files. Prints a line per image, the file and the likeliest classes; with --json, an
object per image, with "predictions", a list of [class, probability], and "classes", the same as an object, which has
one entry for classes of equal name. Prints a line per text, too: the natural logarithm of its likelihood, of how many
tokens, and the tokens that are the likeliest to follow; with --json, an object with "log_likelihood", "tokens" and
"next", a list of [token, probability]. Of a row it prints the classes, as of an image, or the number; with --json also
"row", and "prediction" for a number. The exit code is 1 if an image got no answer, 2 if the server could not be asked
as the flags say.
"""

import base64
import dataclasses
import difflib
import errno
import http.client
import json
import math
import os
import pathlib
import queue
import re
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from typing import NamedTuple

from darts_tf.cli import commands, messages
from darts_tf.cli.configuration import Configuration, option
from darts_tf.cli.messages import UsageError
from darts_tf.data.names import column_name
from darts_tf.devices import runtime

SIGNATURE, TEXT_SIGNATURE, ROW_SIGNATURE = "serving_bytes", "serving_text", "serving_examples"
LARGEST_FILE = 1 << 28  # bytes; as BMP, the largest image that an exported model decodes has about as many
LARGEST_ANSWER = 1 << 24  # bytes
LONGEST = 86400.0  # seconds
UNDECODED = "None of the images can be decoded"  # what an exported model says


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientConfig(Configuration):
    """What `python -m export.client` is asked for."""

    server: str = option(
        "localhost:8500", "HOST:PORT; TF Serving listens on 8500 for gRPC, 8501 for REST.", topic="Request"
    )
    model: str = option("model", "The model's name on the server.", topic="Request")
    version: int | None = option(
        None, "The model's version. Default: the newest.", topic="Request", least=1, most=(1 << 63) - 1
    )
    rest: bool = option(False, "Use the REST API.", topic="Request")
    grpc: bool = option(False, "Use the gRPC API, as without a flag.", topic="Request")
    signature: str | None = option(
        None,
        f"A signature that takes encoded images, texts, or tf.Examples. Default: {SIGNATURE}, {TEXT_SIGNATURE}, or "
        f"{ROW_SIGNATURE}.",
        topic="Request",
    )
    timeout: float = option(10.0, "Seconds that an answer may take.", topic="Request", least=0.001, most=LONGEST)
    text: list | None = option(
        None,
        "A text to ask a language model about, instead of images; may be given several times. Default: images.",
        topic="Request",
        repeated=True,
    )
    row: list | None = option(
        None,
        "A row to ask a model of a table about, a JSON object of columns; may be given several times. Columns that it "
        "lacks, or that are null, are missing values. Default: images.",
        topic="Request",
        repeated=True,
    )
    top_k: int | None = option(
        None,
        "Classes to print per image or row, or next tokens per text, as far as the model returns them. Default: 1 "
        "class, all tokens.",
        topic="Request",
        least=1,
    )

    def check(self):
        """Raises UsageError for what can be seen without a server."""
        if self.rest and self.grpc:
            raise UsageError("--rest and --grpc given: expected one of them.")
        server = re.fullmatch(r"([\w.-]+|\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]):([0-9]{1,5})", self.server)
        if not server or not 0 < int(server[2]) < 1 << 16:
            raise UsageError(f"--server={self.server}: expected HOST:PORT.")
        for name in ("model", "signature"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"[^\s\ud800-\udfff]+", value):
                raise UsageError(f"--{name}={value}: expected a name.")
        for row in self.row or []:
            try:
                if not isinstance(json.loads(row), dict):
                    raise ValueError("no object")
            except (ValueError, RecursionError) as error:
                raise UsageError(f"--row={row}: {error}; expected a JSON object of columns.") from None
        for text in self.text or []:
            if re.search(r"[\ud800-\udfff]", text):
                raise UsageError(f"--text={text}: expected a text in UTF-8.")


class ServerError(Exception):
    """The server did not answer the question.

    Attributes:
        image: whether that is the fault of the image, so that another may be answered.
    """

    def __init__(self, message, image=False):
        super().__init__(message)
        self.image = image


class ColumnError(ValueError):
    """A row is not one of the model's table; the message says why."""


class Scored(NamedTuple):
    """What a server says of a text.

    log_likelihood: natural logarithm of the probability of its tokens, each after those before it.
    tokens: how many there are.
    next: [(token, probability), ...], the likeliest to follow, the likeliest first.
    """

    log_likelihood: float
    tokens: int
    next: list


class Api:
    """What the two APIs have in common.

    Args:
        server: "HOST:PORT".
        model: its name there.
        version: int; None asks the newest.
        signature: its name; None is that of an exported model for what is asked.
        timeout: seconds that a whole answer may take, up to `LONGEST`.
    """

    def __init__(self, server, model, version=None, signature=None, timeout=10.0):
        self.server, self.model, self.version = server, model, version
        self.signature, self.timeout = signature, timeout

    def predict(self, encoded):
        """The likeliest classes of an image.

        Args:
            encoded: bytes of an image file.

        Returns:
            [(class, probability), ...], the likeliest first.

        Raises:
            ServerError: says why not. May be called from several threads.
        """
        found = self._ask(SIGNATURE, "encoded", encoded, ("classes", "probabilities"))
        pairs = _pairs(self.server, *found)
        if not pairs[0][0]:
            raise _undecoded()
        return pairs

    def score(self, text):
        """How likely a text is, and how it goes on.

        Args:
            text: str.

        Returns:
            `Scored`.

        Raises:
            ServerError: says why not. May be called from several threads.
        """
        names = ("log_likelihood", "tokens", "next", "next_probabilities")
        likelihood, tokens, *following = self._ask(TEXT_SIGNATURE, "text", text.encode(), names)
        possible = type(likelihood) in (int, float) and -1e39 < likelihood <= 0.01
        if not possible or type(tokens) is not int or tokens < 0:
            raise _strange(self.server)
        return Scored(float(likelihood), tokens, _pairs(self.server, *following))

    def predict_row(self, row):
        """What a row of a table is.

        Args:
            row: {column: number, text, bool or None}; columns that lack, or are None, are missing values.

        Returns:
            [(class, probability), ...], the likeliest first; or a number, float.

        Raises:
            ServerError: says why not. May be called from several threads.
            ColumnError: the table has no such column, or it is of another type.
        """
        types, method = self._table()
        values = {}
        for place, (name, value) in enumerate(row.items()):
            column = column_name(name, place)
            if column not in types:
                nearest = difflib.get_close_matches(column, types, 1)
                expected = f"did you mean {nearest[0]}?" if nearest else f"expected some of {', '.join(types)}."
                raise ColumnError(f"no column {name}: {expected}")
            if value is not None:
                values[column] = _cell(name, value, types[column])
        found = self._of_row(method, values)
        if method == "classify":
            try:
                names, values = (list(part) for part in zip(*found, strict=True))
            except (TypeError, ValueError):
                raise _strange(self.server) from None
            return _pairs(self.server, names, values)
        if type(found) not in (int, float):
            raise _strange(self.server)
        return float(found)

    def _table(self):
        """{column: "DT_FLOAT", "DT_INT64" or "DT_STRING"} of the model, and "classify" or "regress".

        Raises:
            ServerError: the model is of no table.
        """
        signatures = self._signatures()
        try:
            inputs, outputs = signatures["serving_default"][0], signatures[self.signature or ROW_SIGNATURE][1]
        except KeyError as error:
            raise ServerError(f"{self.server} has no signature {error.args[0]} of the model {self.model}") from None
        return inputs, "classify" if "classes" in outputs else "regress"

    def _signatures(self):
        """{signature: ({input: its type}, {output: its type})} of the model."""
        raise NotImplementedError

    def _of_row(self, method, values):
        """What a call of TF Serving says of one row.

        Args:
            method: "classify" or "regress".
            values: {column: float, int or text}.

        Returns:
            [(class, score), ...], or a number, as the server says it.
        """
        raise NotImplementedError

    def _ask(self, signature, name, content, wanted):
        """Outputs of a signature of one string.

        Args:
            signature: its name, unless another one was asked for.
            name: of its input.
            content: bytes.
            wanted: names of outputs.

        Returns:
            Their values for this string, as Python has them, in a list; strings are texts.
        """
        raise NotImplementedError


class Grpc(Api):
    """TF Serving's gRPC API, by its official messages; arguments and methods are those of `Api`."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        self._channel = grpc.insecure_channel(self.server, [("grpc.max_receive_message_length", LARGEST_ANSWER)])
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def _ask(self, signature, name, content, wanted):
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = self._request(predict_pb2.PredictRequest(), signature)
        request.inputs[name].CopyFrom(tf.make_tensor_proto([content]))
        answer = self._call(self._stub.Predict, request)
        try:
            return [self._row(answer.outputs[output]) for output in wanted]
        except (IndexError, TypeError, ValueError, AttributeError):  # of other tensors
            raise _strange(self.server) from None

    def _request(self, request, signature=None):
        """A request that says which model is meant."""
        request.model_spec.name = self.model
        if signature:
            request.model_spec.signature_name = self.signature or signature
        if self.version is not None:
            request.model_spec.version.value = self.version
        return request

    def _call(self, method, request):
        import grpc

        try:
            return method(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise self._explained(error.code(), error.details(), grpc.StatusCode) from None

    def _signatures(self):
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = self._request(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]))
        answer, found = self._call(self._stub.GetModelMetadata, request), get_model_metadata_pb2.SignatureDefMap()
        if not answer.metadata["signature_def"].Unpack(found):
            raise _strange(self.server)

        def called(info):
            return info.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_number[info.dtype].name

        return {
            name: tuple(
                {key: called(info) for key, info in tensors.items()}
                for tensors in (signature.inputs, signature.outputs)
            )
            for name, signature in found.signature_def.items()
        }

    def _of_row(self, method, values):
        from tensorflow_serving.apis import classification_pb2, regression_pb2

        kinds = {"classify": classification_pb2.ClassificationRequest, "regress": regression_pb2.RegressionRequest}
        request = self._request(kinds[method](), ROW_SIGNATURE)
        features = request.input.example_list.examples.add().features.feature
        for name, value in values.items():
            feature = features[name]
            if isinstance(value, str):
                feature.bytes_list.value.append(value.encode())
            else:
                (feature.float_list if isinstance(value, float) else feature.int64_list).value.append(value)
        call = {"classify": self._stub.Classify, "regress": self._stub.Regress}[method]
        result = self._call(call, request).result
        try:
            if method == "regress":
                return result.regressions[0].value
            return [(one.label, one.score) for one in result.classifications[0].classes]
        except IndexError:
            raise _strange(self.server) from None

    @staticmethod
    def _row(tensor):
        import tensorflow as tf

        if math.prod(dimension.size for dimension in tensor.tensor_shape.dim) > LARGEST_ANSWER:
            raise ValueError  # it takes few bytes to write a large one
        row = tf.make_ndarray(tensor)[0]
        if tensor.dtype == tf.string.as_datatype_enum:
            return [text.decode() for text in row.tolist()]
        return row.tolist()

    def _explained(self, code, details, codes):
        if code == codes.UNAVAILABLE:
            return ServerError(f"no server answers at {self.server}: {_line(details)}")
        if code == codes.DEADLINE_EXCEEDED:
            return _late(self.server, self.timeout)
        if code == codes.NOT_FOUND:
            return ServerError(f"{self.server} has no such model: {_line(details)}")
        return _refused(self.server, details)


class Rest(Api):
    """TF Serving's REST API; arguments and methods are those of `Api`."""

    def _ask(self, signature, name, content, wanted):
        instance = {name: {"b64": base64.b64encode(content).decode()}}
        body = {"signature_name": self.signature or signature, "instances": [instance]}
        return self._call(":predict", body, lambda answer: [answer["predictions"][0][output] for output in wanted])

    def _signatures(self):
        def parse(answer):
            return {
                name: tuple(
                    {key: info.get("dtype") for key, info in signature.get(part, {}).items()}
                    for part in ("inputs", "outputs")
                )
                for name, signature in answer["metadata"]["signature_def"]["signature_def"].items()
            }

        return self._call("/metadata", None, parse)

    def _of_row(self, method, values):
        body = {"signature_name": self.signature or ROW_SIGNATURE, "examples": [values]}
        return self._call(f":{method}", body, lambda answer: answer["results"][0])

    def _call(self, what, body, parse):
        """What `parse` makes of an answer.

        Args:
            what: the end of the address, such as ":predict".
            body: what JSON can hold, to post; None to get.
            parse: function of the answer, as JSON holds it.
        """
        version = "" if self.version is None else f"/versions/{self.version}"
        url = f"http://{self.server}/v1/models/{urllib.parse.quote(self.model, safe='')}{version}{what}"
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
        try:
            status, content = _within(self.timeout, lambda: _fetch(request, self.timeout))
        except (OSError, UnicodeError) as error:  # the latter of a host name
            reason = getattr(error, "reason", error)  # of URLError
            if isinstance(reason, TimeoutError):
                raise _late(self.server, self.timeout) from None
            raise ServerError(f"no server answers at {self.server}: {_line(reason)}") from None
        except (ValueError, http.client.HTTPException):
            raise _strange(self.server) from None
        try:
            answer = json.loads(content)
            if status == 200:
                found = parse(answer)
            else:
                details = _line(answer["error"])
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise _strange(self.server, "" if status == 200 else f" (HTTP {status})") from None
        if status == 404:
            raise ServerError(f"{self.server} has no such model: {details}")
        if status != 200:
            raise _refused(self.server, details)
        return found


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def _fetch(request, timeout):
    """The status and the content of an HTTP answer of any status."""
    try:
        response = urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        content = response.read(LARGEST_ANSWER + 1)
        if len(content) > LARGEST_ANSWER:
            raise ValueError("too large")
        if response.length:  # which is what is missing
            raise http.client.IncompleteRead(content, response.length)
        return response.status, content


def _within(seconds, function):
    """What a function returns; TimeoutError if that takes longer, whatever it is waiting for."""
    ended = queue.SimpleQueue()

    def call():
        try:
            ended.put((function(), None))
        except BaseException as error:
            ended.put((None, error))

    threading.Thread(target=call, daemon=True).start()
    try:
        result, error = ended.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return result


def _pairs(server, names, probabilities):
    """What an answer says of classes or tokens, checked."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _strange(server)
    if not isinstance(probabilities, list) or not all(
        type(p) in (int, float) and 0 <= p <= 1.01 for p in probabilities
    ):
        raise _strange(server)
    if not names or len(names) != len(probabilities):
        raise _strange(server)
    return list(zip(names, map(float, probabilities), strict=True))


def _cell(name, value, kind):
    """A value of a row in a type of TensorFlow: float, int or text."""
    if kind == "DT_STRING":
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ColumnError(f"column {name}: {json.dumps(value)}; expected a text.")
        return str(value).strip()
    try:
        number = float(value)
        if isinstance(value, list | dict) or not math.isfinite(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ColumnError(f"column {name}: {json.dumps(value)}; expected a number.") from None
    return number if kind == "DT_FLOAT" else int(number)


def _undecoded():
    expected = "expected a PNG, JPEG, GIF or BMP file of a usual size"
    return ServerError(f"the server cannot decode it: {expected}", image=True)


def _late(server, seconds):
    return ServerError(f"{server} did not answer within {seconds:g} s")


def _strange(server, how=""):
    return ServerError(f"{server} answered, but not as TF Serving does{how}")


def _refused(server, details):
    details = _line(details)
    if UNDECODED in details:
        return _undecoded()
    return ServerError(f"{server} refused the request: {details}")


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
        raise UsageError(message) from None


def read(name):
    """The content of a file that may be an image.

    Raises:
        OSError: it cannot be read, or is too large.
    """
    with pathlib.Path(name).open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise OSError(errno.EFBIG, f"larger than {LARGEST_FILE >> 20} MiB: expected an image")
    return content


def main(config, names):
    """The command."""
    config.check()
    given = [f"--{name}" for name in ("text", "row") if getattr(config, name)] + names[:1]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} given: expected texts, rows or images.")
    if not given:
        raise UsageError("expected IMAGE ..., --text or --row, see --help.")
    if not config.rest:
        import_grpc()
    api = Rest if config.rest else Grpc
    client = api(config.server, config.model, config.version, config.signature, config.timeout)
    ask, asked = (_ask_of_text, config.text) if config.text else (_ask_of_image, names)
    ask, asked = (_ask_of_row, config.row) if config.row else (ask, asked)
    failed = False
    for one in asked:
        try:
            ask(client, one, config.top_k)
        except ServerError as error:
            if not error.image:
                raise UsageError(f"{error}; --server={config.server} --model={config.model}") from None
            print(f"error: {one}: {error}", file=sys.stderr)
            failed = True
        except ColumnError as error:
            raise UsageError(f"--row={one}: {error}") from None
        except OSError as error:
            print(f"error: {one}: {error.strerror}", file=sys.stderr)
            failed = True
    sys.exit(1 if failed else 0)


def _ask_of_image(client, name, top_k):
    answer = client.predict(read(name))[: top_k or 1]
    classes = {}
    for label, value in answer:
        classes.setdefault(label, value)
    messages.result(f"{name}  {_listed(answer)}", image=name, classes=classes, predictions=answer)


def _ask_of_row(client, row, top_k):
    found = client.predict_row(json.loads(row))
    if isinstance(found, float):
        messages.result(f"{row}  {found:.6g}", row=json.loads(row), prediction=found)
        return
    found = found[: top_k or 1]
    messages.result(f"{row}  {_listed(found)}", row=json.loads(row), classes=dict(found), predictions=found)


def _ask_of_text(client, text, top_k):
    found = client.score(text)
    following = found.next[:top_k]
    tokens = f"{found.tokens} token{'' if found.tokens == 1 else 's'}"
    shown = f"{json.dumps(text, ensure_ascii=False)}  log-likelihood {found.log_likelihood:.2f} of {tokens}, next "
    values = {"log_likelihood": found.log_likelihood, "tokens": found.tokens, "next": following}
    messages.result(shown + _listed(following), text=text, **values)


def _listed(pairs):
    return ", ".join(f"{name} {value:.1%}" for name, value in pairs)


if __name__ == "__main__":
    commands.run(main, ClientConfig, arguments=["[IMAGE ...]"])
