"""SMS by HTTP: what providers are asked, what their answers mean, and who may bring something."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from hypothesis import given, settings
from hypothesis import strategies as st
from treq.testing import StubTreq
from twilio.request_validator import RequestValidator
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost, ConnectionRefusedError, DNSLookupError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from gateway.config import Config, SMSSection
from gateway.errors import ConfigError, NotReady
from gateway.sms.http.presets import named
from gateway.sms.http.settings import HTTPSection
from gateway.sms.http.transport import HTTPTransport
from gateway.sms.http.webhooks import Webhooks
from gateway.sms.interfaces import Body, Incoming, ISMSInbox, Outgoing, Receipt, Sent
from gateway.sms.making import check
from tests.fakes import NOON

PRESETS: Final = ("plain", "kannel", "twilio", "jasmin", "android")
SECRET: Final = "a-secret-of-24-letters!!"
ID: Final = "0123456789abcdef" * 2
SECTION: Final = HTTPSection(
    user="AC1",
    url="http://provider.example/send",
    listen="127.0.0.1:0",
    public_url="https://gw.example",
    answer_within=10.0,
)


class Provider(Resource):
    """Takes what it is asked, and answers as it is told."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[dict[str, Any]] = []
        self.status, self.text = 200, b"{}"
        self.headers: dict[str, str] = {}
        self.silent = False

    def render(self, request: Any) -> Any:
        body = request.content.read()
        kind = (request.getHeader("content-type") or "").partition(";")[0]
        query = parse_qs(request.uri.decode().partition("?")[2], keep_blank_values=True)
        form: Any = {}
        if kind == "application/json":
            form = json.loads(body)
        elif body:
            form = parse_qs(body.decode(), keep_blank_values=True)
        self.asked.append(
            {
                "method": request.method.decode(),
                "path": request.path.decode(),
                "query": query,
                "body": form,
                "authorization": request.getHeader("authorization"),
            }
        )
        if self.silent:
            return NOT_DONE_YET
        request.setResponseCode(self.status)
        for name, value in self.headers.items():
            request.setHeader(name, value)
        return self.text


class Failing:
    """A client whose requests end in an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def request(self, *args: Any, **kwargs: Any) -> Any:
        return fail(Failure(self.error))


class OutCase(SynchronousTestCase):
    """A transport and its provider."""

    def made(self, preset: str = "plain", client: Any = None, section: HTTPSection = SECTION) -> HTTPTransport:
        """One of a preset."""
        self.clock = Clock()
        self.provider = Provider()
        self.client = StubTreq(self.provider)
        return HTTPTransport(
            *(self.clock, section, named(preset, "x"), "+4930123456", SECRET, SECRET, None, lambda: NOON),
            client=client or self.client,
        )

    def sent(self, d: Deferred[Sent]) -> Sent:
        """What became of a text."""
        return self.successResultOf(d)


def text(body: str = "RCONF", validity_s: float = 900.7, password: str = "") -> Outgoing:
    """A text to be sent."""
    return Outgoing(ID, "+4915112345678", Body(body, password), validity_s)


def leaves(tree: Any) -> list[str]:
    """All texts in a structure."""
    if isinstance(tree, Mapping):
        return [leaf for value in tree.values() for leaf in leaves(value)]
    if isinstance(tree, list):
        return [leaf for value in tree for leaf in leaves(value)]
    return [str(tree)]


class AskedTests(OutCase):
    """What each provider is asked."""

    def test_each(self) -> None:
        """Number, text, validity, and who we are, where its document has them."""
        basic = "Basic " + base64.b64encode(f"AC1:{SECRET}".encode()).decode()
        expected: dict[str, dict[str, Any]] = {
            "plain": {
                "method": "POST",
                "body": {"to": "+4915112345678", "from": "+4930123456", "text": "RCONF", "validity_s": 900, "id": ID},
                "authorization": f"Bearer {SECRET}",
            },
            "kannel": {
                "method": "GET",
                "query": {
                    "username": ["AC1"],
                    "password": [SECRET],
                    "to": ["+4915112345678"],
                    "from": ["+4930123456"],
                    "text": ["RCONF"],
                    "charset": ["UTF-8"],
                    "validity": ["15"],
                    "dlr-mask": ["19"],
                    "dlr-url": [f"https://gw.example/sms/receipt?token={SECRET}&id={ID}&state=%d"],
                },
            },
            "twilio": {
                "method": "POST",
                "body": {
                    "To": ["+4915112345678"],
                    "From": ["+4930123456"],
                    "Body": ["RCONF"],
                    "ValidityPeriod": ["900"],
                    "StatusCallback": ["https://gw.example/sms/receipt"],
                },
                "authorization": basic,
            },
            "jasmin": {
                "method": "POST",
                "body": {
                    "username": ["AC1"],
                    "password": [SECRET],
                    "to": ["4915112345678"],
                    "from": ["+4930123456"],
                    "content": ["RCONF"],
                    "validity-period": ["15"],
                    "dlr": ["yes"],
                    "dlr-level": ["2"],
                    "dlr-method": ["POST"],
                    "dlr-url": [f"https://gw.example/sms/receipt?token={SECRET}"],
                },
            },
            "android": {
                "method": "POST",
                "body": {
                    "id": ID,
                    "phoneNumbers": ["+4915112345678"],
                    "textMessage": {"text": "RCONF"},
                    "ttl": 900,
                    "withDeliveryReport": True,
                },
                "authorization": basic,
            },
        }
        for preset, wanted in expected.items():
            transport = self.made(preset)
            transport.send(text())
            self.client.flush()
            (asked,) = self.provider.asked
            self.assertEqual(wanted, {name: asked[name] for name in wanted}, preset)

    @settings(max_examples=100)
    @given(st.text(max_size=300), st.sampled_from(PRESETS))
    def test_any_text(self, said: str, preset: str) -> None:
        """Whatever a text holds, it comes as it is, in one place, and nothing around it changes."""
        said = said.encode("utf-8", "replace").decode().replace("{password}", "")  # it is the one thing put in
        transport = self.made(preset)
        transport.send(text(said))
        transport.send(text("MARK"))
        self.client.flush()
        first, second = ({k: one[k] for k in ("query", "body", "path", "method")} for one in self.provider.asked)
        self.assertEqual(leaves(second).count("MARK"), 1, preset)
        self.assertEqual([said if leaf == "MARK" else leaf for leaf in leaves(second)], leaves(first), preset)

    def test_placeholders_in_texts(self) -> None:
        """A text that looks like something to be filled in stays as it is."""
        transport = self.made()
        transport.send(text("{secret} {number} {{text}}"))
        self.client.flush()
        self.assertEqual("{secret} {number} {{text}}", self.provider.asked[0]["body"]["text"])

    def test_password(self) -> None:
        """A tracker's password is in what goes out, and nowhere else."""
        transport = self.made()
        transport.send(text("940{password}", password="4711"))
        self.client.flush()
        self.assertEqual("9404711", self.provider.asked[0]["body"]["text"])

    def test_validity(self) -> None:
        """Never more than it is: not more than the provider takes, and not a minute where it is less."""
        transport = self.made("twilio")
        transport.send(text(validity_s=1e6))
        self.client.flush()
        self.assertEqual(["14400"], self.provider.asked[0]["body"]["ValidityPeriod"])
        transport = self.made("kannel")
        self.assertEqual("temporary", self.sent(transport.send(text(validity_s=59.0))).outcome)
        transport.send(text(validity_s=119.0))
        self.client.flush()
        self.assertEqual(["1"], self.provider.asked[0]["query"]["validity"])

    def test_url(self) -> None:
        """What is filled into an address is one piece of it."""
        section = HTTPSection(url="http://provider.example/a/{user}/send?n={number}", user="a/b?c")
        transport = self.made("twilio", section=section)
        transport.send(text())
        self.client.flush()
        self.assertEqual("/a/a%2Fb%3Fc/send", self.provider.asked[0]["path"])
        self.assertEqual({"n": ["+4915112345678"]}, self.provider.asked[0]["query"])


class AnsweredTests(OutCase):
    """What the provider's answer means."""

    def test_each(self) -> None:
        """Statuses and texts, as the presets have them."""
        for preset, status, said, outcome, ids in (
            *(("plain", 200, '{"id": "m1"}', "accepted", ("m1",)), ("plain", 202, "", "accepted", ())),
            *(("plain", 200, '{"id": [1]}', "accepted", ()), ("plain", 200, '{"id": 7}', "accepted", ("7",))),
            *(("plain", 429, "", "temporary", ()), ("plain", 503, "", "temporary", ())),
            *(
                ("plain", 400, "", "rejected", ()),
                ("plain", 401, "", "rejected", ()),
                ("plain", 302, "", "uncertain", ()),
            ),
            *(("plain", 500, "", "uncertain", ()), ("plain", 504, "", "uncertain", ())),
            *(("kannel", 202, "0: Accepted for delivery", "accepted", (ID,)), ("kannel", 202, "odd", "rejected", ())),
            *(("kannel", 202, "3: Queued for later delivery", "accepted", (ID,)), ("kannel", 503, "", "temporary", ())),
            ("kannel", 403, "Authorization failed for sendsms", "rejected", ()),
            *(("twilio", 201, '{"sid": "SM1"}', "accepted", ("SM1",)), ("twilio", 400, "{}", "rejected", ())),
            ("jasmin", 200, 'Success "07033084-5cfd"', "accepted", ("07033084-5cfd",)),
            *(("jasmin", 412, 'Error "No route found"', "rejected", ()), ("jasmin", 500, "", "uncertain", ())),
            ("android", 202, '{"id": "a1", "state": "Pending"}', "accepted", ("a1",)),
        ):
            transport = self.made(preset)
            self.provider.status, self.provider.text = status, said.encode()
            d = transport.send(text())
            self.client.flush()
            found = self.sent(d)
            self.assertEqual((outcome, ids), (found.outcome, found.ids), (preset, status, said))
            self.assertNotIn(SECRET, found.reason)

    def test_retry_after(self) -> None:
        """A provider may say when."""
        for said, seconds in (("7", 7.0), ("soon", 0.0), ("99999999", 600.0)):
            transport = self.made()
            self.provider.status, self.provider.headers = 429, {"retry-after": said}
            d = transport.send(text())
            self.client.flush()
            self.assertEqual(seconds, self.sent(d).retry_s)

    def test_errors(self) -> None:
        """Before a request went out it was not sent; after that nobody knows."""
        for error, outcome in (
            *((ConnectionRefusedError(), "temporary"), (DNSLookupError(), "temporary")),
            (ResponseNeverReceived([Failure(ConnectionLost())]), "uncertain"),
            (RuntimeError(SECRET), "uncertain"),
        ):
            found = self.sent(self.made(client=Failing(error)).send(text()))
            self.assertEqual(outcome, found.outcome, error)
            self.assertNotIn(SECRET, found.reason)

    def test_silence(self) -> None:
        """A provider that does not answer in time may have it."""
        transport = self.made()
        self.provider.silent = True
        d = transport.send(text())
        self.client.flush()
        self.clock.advance(10)
        self.assertEqual("uncertain", self.sent(d).outcome)

    def test_window(self) -> None:
        """So many are under way, and no more."""
        transport = self.made(section=HTTPSection(url="http://p.example/", window=2))
        self.provider.silent = True
        for _ in range(5):
            transport.send(text())
        self.client.flush()
        self.assertEqual(2, len(self.provider.asked))


@implementer(ISMSInbox)
class Box:
    """Takes what comes; C{away}: it can't be stored."""

    def __init__(self) -> None:
        self.took: list[object] = []
        self.away = False

    def received(self, incoming: object) -> Any:
        if self.away:
            return fail(NotReady("Redis is away"))
        self.took.append(incoming)
        return succeed(None)

    receipt = received


class InCase(SynchronousTestCase):
    """Where texts come in."""

    def come(self, preset: str, secret: str = SECRET) -> None:
        """Of a provider."""
        self.now = NOON
        self.box = Box()
        self.hooks = Webhooks(named(preset, "x"), SECTION, secret, self.box, lambda: self.now)
        self.client: Any = StubTreq(self.hooks)

    def ask(self, method: str, path: str, **more: Any) -> tuple[int, str]:
        """Somebody brings something: the status and the text of the answer."""
        d = self.client.request(method, f"https://gw.example{path}", **more)
        self.client.flush()
        response = self.successResultOf(d)
        body = self.successResultOf(response.text("utf-8"))
        return response.code, body


class BroughtTests(InCase):
    """Texts and receipts of each provider."""

    def test_each(self) -> None:
        """Read where its document has them, and answered as it wants it."""
        token = {"token": SECRET}
        cases: list[tuple[str, str, str, dict[str, Any], object, tuple[int, str]]] = [
            (*("plain", "POST", "/sms/received"), {"json": {"from": "+49151", "text": "SET OK", "id": "7"}},
             Incoming("+49151", "SET OK", "7"), (200, "OK")),
            (*("plain", "GET", "/sms/received"), {"params": {"from": "+49151", "text": "SET OK"}},
             Incoming("+49151", "SET OK", ""), (200, "OK")),
            (*("plain", "POST", "/sms/receipt"), {"data": {"id": "m1", "state": "expired"}},
             Receipt("m1", "failed", "expired"), (200, "OK")),
            (*("kannel", "GET", "/sms/received"), {"params": {"from": "+49151", "text": "a&b=ü", "id": "u-1"}},
             Incoming("+49151", "a&b=ü", "u-1"), (200, "")),
            (*("kannel", "GET", "/sms/receipt"), {"params": {"id": ID, "state": "1"}},
             Receipt(ID, "delivered", "1"), (200, "")),
            (*("kannel", "GET", "/sms/receipt"), {"params": {"id": ID, "state": "8"}},
             Receipt(ID, "pending", "8"), (200, "")),
            (*("jasmin", "POST", "/sms/received"), {"data": {"from": "49151", "content": "SET OK", "id": "j"}},
             Incoming("49151", "SET OK", "j"), (200, "ACK/Jasmin")),
            (*("jasmin", "POST", "/sms/receipt"), {"data": {"id": "j", "message_status": "UNDELIV", "level": "2"}},
             Receipt("j", "failed", "UNDELIV"), (200, "ACK/Jasmin")),
        ]  # fmt: skip
        for preset, method, path, more, took, answer in cases:
            self.come(preset)
            given = dict(more)
            given["params"] = {**given.get("params", {}), **token}
            self.assertEqual(answer, self.ask(method, path, **given), (preset, more))
            self.assertEqual([took], self.box.took)

    def test_android(self) -> None:
        """Its events come to one address, each signed with its time."""
        self.come("android")
        for event, payload, took in (
            ("sms:received", {"phoneNumber": "+49151", "message": "SET OK", "messageId": "a"},
             Incoming("+49151", "SET OK", "a")),
            ("sms:delivered", {"messageId": "a1"}, Receipt("a1", "delivered", "sms:delivered")),
            ("sms:failed", {"messageId": "a1", "reason": "x"}, Receipt("a1", "failed", "sms:failed")),
            ("sms:sent", {"messageId": "a1"}, Receipt("a1", "pending", "sms:sent")),
        ):  # fmt: skip
            body = json.dumps({"event": event, "payload": payload}).encode()
            self.box.took.clear()
            self.assertEqual((200, ""), self.ask("POST", "/sms/received", **self.signed(body)))
            self.assertEqual([took], self.box.took)

    def signed(self, body: bytes, at: float = NOON, key: str = SECRET) -> dict[str, Any]:
        """A request that is signed."""
        stamp = str(int(at))
        made = hmac.new(key.encode(), body + stamp.encode(), hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-timestamp": stamp, "x-signature": made}
        return {"data": body, "headers": headers}

    def test_signature(self) -> None:
        """Signed by somebody else, altered, or kept for a while: it is not taken."""
        self.come("android")
        body = json.dumps({"event": "sms:delivered", "payload": {"messageId": "a1"}}).encode()
        good = self.signed(body)
        for wrong in (
            self.signed(body, key="another-key-of-24-letters"),
            self.signed(body, at=NOON - 301),
            self.signed(body, at=NOON + 301),
            {**good, "data": body.replace(b"a1", b"a2")},
            {**good, "headers": {**good["headers"], "x-timestamp": str(int(NOON) + 1)}},
            {"data": body, "headers": {"content-type": "application/json"}},
        ):
            self.assertEqual(403, self.ask("POST", "/sms/received", **wrong)[0])
        self.assertEqual([], self.box.took)
        self.assertEqual(200, self.ask("POST", "/sms/received", **good)[0])

    def test_token(self) -> None:
        """The token in its three places; a wrong one, or none, is turned away, and said without what was brought."""
        self.come("plain")
        brought = {"from": "+49151", "text": "hush"}
        for right in (
            {"params": {**brought, "token": SECRET}},
            {"params": brought, "headers": {"X-Token": SECRET}},
            {"params": brought, "headers": {"Authorization": f"Bearer {SECRET}"}},
        ):
            self.assertEqual(200, self.ask("GET", "/sms/received", **right)[0])
        for wrong in (
            {"params": brought},
            {"params": {**brought, "token": SECRET[:-1]}},
            {"params": {**brought, "token": ""}},
        ):
            self.assertEqual(403, self.ask("GET", "/sms/received", **wrong)[0])
        # a token in a body is none
        self.assertEqual(403, self.ask("POST", "/sms/received", data={**brought, "token": SECRET})[0])
        self.assertEqual(3, len(self.box.took))

    def test_away(self) -> None:
        """What can't be stored now the provider is to bring again."""
        self.come("plain")
        self.box.away = True
        self.assertEqual(503, self.ask("GET", "/sms/received", params={"from": "1", "text": "x", "token": SECRET})[0])
        self.assertEqual([], self.flushLoggedErrors())

    def test_senseless(self) -> None:
        """What can't be read says so."""
        self.come("plain")
        token = {"params": {"token": SECRET}}
        for status, method, path, more in (
            *((400, "GET", "/sms/received", token), (400, "GET", "/sms/receipt", token), (404, "GET", "/sms", token)),
            (400, "POST", "/sms/received", {**token, "data": b"{", "headers": {"content-type": "application/json"}}),
            (
                400,
                "POST",
                "/sms/received",
                {**token, "data": b"[" * 60_000, "headers": {"content-type": "application/json"}},
            ),
            (405, "DELETE", "/sms/received", token),
        ):
            self.assertEqual(status, self.ask(method, path, **more)[0], (method, path))
        many = urlencode([("token", SECRET), *((f"n{n}", "1") for n in range(200))])
        self.assertEqual(400, self.ask("GET", f"/sms/received?{many}")[0])
        self.assertEqual([], self.flushLoggedErrors())


class TwilioTests(InCase):
    """Twilio's own RequestValidator is the judge of signatures."""

    def brought(self, params: Any, path: str = "/sms/received", sign: Any = None) -> int:
        """A request that Twilio signs; C{sign}: what it signs instead."""
        validator = RequestValidator(SECRET)
        made = validator.compute_signature(f"https://gw.example{path}", params if sign is None else sign)
        pairs = [(k, v) for k, vs in params.items() for v in (vs if isinstance(vs, list) else [vs])]
        headers = {"X-Twilio-Signature": made, "content-type": "application/x-www-form-urlencoded"}
        return self.ask("POST", path, data=urlencode(pairs).encode(), headers=headers)[0]

    def test_good(self) -> None:
        """What it signs is taken, whatever it holds."""
        for params in (
            {"From": "+49151", "Body": "SET OK", "MessageSid": "SM1"},
            {"From": "+49151", "Body": "äöü €&=+ \U0001f600", "MessageSid": "SM1", "Empty": ""},
            {"From": "+49151", "Body": "", "MessageSid": "SM1", "AAA": "1", "aaa": "2"},
        ):
            self.come("twilio")
            self.assertEqual(200, self.brought(params))
            self.assertEqual([Incoming("+49151", params["Body"], "SM1")], self.box.took)
        self.come("twilio")
        self.assertEqual(
            200, self.brought({"MessageSid": "SM1", "MessageStatus": "undelivered"}, "/sms/receipt?x=1&y=%20")
        )
        self.assertEqual([Receipt("SM1", "failed", "undelivered")], self.box.took)

    @settings(max_examples=100)
    @given(
        st.dictionaries(st.text("abcXYZ_", min_size=1, max_size=8), st.text(max_size=30), max_size=8),
        st.text(max_size=50),
    )
    def test_any(self, more: dict[str, str], said: str) -> None:
        """Whatever it brings besides, and says."""
        params = {name: value.encode("utf-8", "replace").decode() for name, value in more.items()}
        params |= {"From": "+49151", "Body": said.encode("utf-8", "replace").decode(), "MessageSid": "SM1"}
        self.come("twilio")
        self.assertEqual(200, self.brought(params))

    def test_forged(self) -> None:
        """Altered, of another address, or signed by nobody: it is not taken."""
        good = {"From": "+49151", "Body": "SET OK", "MessageSid": "SM1"}
        self.come("twilio")
        self.assertEqual(403, self.brought({**good, "Body": "OTHER"}, sign=good))
        self.assertEqual(403, self.brought({**good, "More": "x"}, sign=good))
        self.assertEqual(403, self.brought(good, sign={}))
        self.come("twilio", "another secret of Twilio's")
        self.assertEqual(403, self.brought(good))
        self.assertEqual([], self.box.took)


class ConfigurationTests(SynchronousTestCase):
    """What can't work stops start-up, and is named."""

    def refuses(self, http: HTTPSection, said: str) -> None:
        """What is said of a section."""
        config = Config("x.toml", sms=SMSSection(transport="http", http=http))
        error = self.assertRaises(ConfigError, check, config)
        self.assertIn(said, str(error))
        self.assertNotIn("\n", str(error))

    def file(self, text: str, name: str = "secret") -> str:
        """A file with a text."""
        path = str(self.mktemp()) + name
        with open(path, "w") as file:
            file.write(text)
        return path

    def test_section(self) -> None:
        """Each mistake."""
        secret, short = self.file(SECRET), self.file("short")
        for http, said in (
            (HTTPSection(), "key 'url'"),
            (HTTPSection(url="ftp://x"), "key 'url'"),
            (HTTPSection(preset="nobody"), "'nobody' is no provider (there are: plain, kannel, twilio"),
            (HTTPSection(preset="nowhere.toml"), "nowhere.toml"),
            (HTTPSection(url="http://x", secret_file="/nowhere"), "/nowhere"),
            (HTTPSection(url="http://x"), "key 'secret_file'"),
            (HTTPSection(preset="kannel", secret_file=secret), "key 'user'"),
            (HTTPSection(preset="kannel", secret_file=secret, in_secret_file=secret, user="u"), "key 'public_url'"),
            (
                HTTPSection(url="http://x", secret_file=secret, in_secret_file=short, listen="127.0.0.1:1"),
                "could guess",
            ),
            (HTTPSection(url="http://x", secret_file=secret, listen="127.0.0.1:1"), "key 'in_secret_file'"),
            (
                HTTPSection(preset="twilio", user="u", secret_file=short, public_url="https://x", listen="127.0.0.1:1"),
                "key 'secret_file': holds less",
            ),
            (HTTPSection(url="http://x", secret_file=secret, in_secret_file=secret, listen="nowhere"), "names no port"),
        ):
            self.refuses(http, said)
        check(Config(sms=SMSSection(transport="http", http=HTTPSection(url="http://x", secret_file=secret))))

    def test_own_preset(self) -> None:
        """Another provider, in the same form; and each mistake in one."""
        good = '[out]\nurl = "http://x"\nquery = { n = "{number}", t = "{text}", v = "{validity_s}" }\n'
        check(Config(sms=SMSSection(transport="http", http=HTTPSection(preset=self.file(good, ".toml")))))
        for changed, said in (
            (good.replace("{text}", "{what}"), "{what} is nothing that can be filled in"),
            (good.replace("{text}", "hello"), "nothing there is {text}"),
            (good + 'headers = { X = "{text}" }\n', "it belongs elsewhere"),
            (good.replace("{validity_s}", "60"), "not told how long"),
            (good + 'id = "xpath:/a"\n', "neither ours"),
            (good + 'id = "regex:abc"\n', "no group"),
            (good + 'accepted_if = "("\n', "no regular expression"),
            (good + 'method = "BREW"\n', "'BREW' is none of"),
            (good + 'methd = "GET"\n', "unknown key 'methd'"),
            (good + "accepted = 200\n", "key 'accepted': 200 is not of type list"),
            (good + '[in]\nauth = "trust"\n', "'trust' is none of token"),
            (good + "[more]\n", "unknown section [more]"),
            ("out = 5\n", "is no section"),
            ("[out\n", "toml"),
        ):
            self.refuses(HTTPSection(preset=self.file(changed, ".toml")), said)
        none = self.file(good.replace("{validity_s}", "60") + 'validity = "none"\n', ".toml")
        check(Config(sms=SMSSection(transport="http", http=HTTPSection(preset=none))))
        self.assertEqual("none", named(none, "x").out.validity)
