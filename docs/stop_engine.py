"""Stop an engine and wait for the proof:  python stop_engine.py redis://commander:PASSWORD@HOST 9170123456"""

import json
import sys
import time
import uuid

import redis

r = redis.Redis.from_url(sys.argv[1], decode_responses=True, socket_timeout=None)
ref, ttl, newest = str(uuid.uuid4()), 300, r.xrevrange("gateway:result", count=1)
print("ref", ref, flush=True)  # known before the command is given: with it nothing is lost, and nothing given twice
last = newest[0][0] if newest else "0"  # looked up before the command is given: none of its events is missed
r.xadd("gateway:command", {"ident": sys.argv[2], "command": "engine.stop", "ttl": ttl, "ref": ref, "by": "night desk"})
end = time.monotonic() + ttl + 3660  # by then it has an outcome
while time.monotonic() < end:
    for _, events in r.xread({"gateway:result": last}, block=1000):
        for entry, event in events:
            last, data = entry, json.loads(event["data"])
            if data.get("ref") == ref:
                print(event["time"], event["type"], data.get("reason", ""), flush=True)
                if data.get("final"):
                    sys.exit(event["type"] != "command.verified")
sys.exit(f"no outcome: is a gateway running? gateway:request:{ref} says how it stands")
