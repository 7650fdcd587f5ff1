"""Makes C{twistd gateway} known."""

from twisted.application.service import ServiceMaker

gateway = ServiceMaker(
    "gateway", "gateway.tap", "GPS trackers of many protocols on one port, onto Redis streams", "gateway"
)
