"""Commands from their entry on the stream to the device and back, with real gateways, a real Redis and real fleets."""
