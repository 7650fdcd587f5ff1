"""Print each report with plain redis-py:  python consume_redis.py redis://consumer:PASSWORD@HOST NAME"""

import json
import sys

import redis


def handle(event):
    print(event["id"], event["time"], event["ident"], event["latitude"], event["longitude"], event["late"], flush=True)


r, me = redis.Redis.from_url(sys.argv[1], decode_responses=True, socket_timeout=None), sys.argv[2]
stream, group, dead = "gateway:position", "map", "gateway:consumer:dead:map"
contract = json.loads(r.get("gateway:contract") or "{}")
if contract.get("version") != 1 or stream not in contract["streams"]:
    sys.exit(f"no gateway writes {stream} here, as far as this program knows")
if not r.exists(stream) or group not in [found["name"] for found in r.xinfo_groups(stream)]:
    r.xgroup_create(stream, group, id="0", mkstream=True)
while True:
    entries = r.xautoclaim(stream, group, me, min_idle_time=60_000, count=100)[1]  # what was begun and not finished
    for _, new in [] if entries else r.xreadgroup(group, me, {stream: ">"}, count=100, block=5000):
        entries = new
    for entry, event in entries:
        try:
            handle(event)
        except Exception as error:  # it comes again in a minute, five times in all
            if r.xpending_range(stream, group, entry, entry, 1)[0]["times_delivered"] < 5:
                continue
            r.xadd(dead, {"dead_reason": repr(error), "dead_entry": entry, **event}, maxlen=10_000)
        r.xack(stream, group, entry)
