"""The bus: events out, requests to and fro, over any MQTT broker.

``cloudevents`` turns events into JSON and back (pure); ``topics`` names the topics; ``mqtt`` keeps one connection
alive and delivers in order; ``spool`` holds what waits meanwhile; ``publisher`` puts a source's events and the
retained state of its UEs on the bus; ``requests`` is question and answer between controllers; ``embedded`` is a
broker for a first run.
"""
