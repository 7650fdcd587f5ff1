"""Print each report:  python consume.py redis://consumer:PASSWORD@HOST [NAME]"""

import sys

from twisted.internet import task
from twisted.logger import globalLogBeginner, textFileLogObserver

from gateway.consumer import Consumer, Event


async def handle(event: Event) -> None:  # a plain function will do, and so will one that returns a Deferred
    print(event.id, event.time, event.ident, event.latitude, event.longitude, event.speed_kmh, event.late, flush=True)


def main(reactor, url, name=""):
    consumer = Consumer(url, stream="position", group="map", handle=handle, consumer=name)
    reactor.addSystemEventTrigger("before", "shutdown", consumer.stopService)
    consumer.startService()
    return consumer.ended  # fails, and ends the program, where it can't go on


globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
task.react(main, sys.argv[1:])
