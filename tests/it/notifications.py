"""A desktop that shows no notifications but writes them down, for `notify-send`.

usage: notifications.py FILE

Answers as the Desktop Notifications Specification says; each notification's summary, body and urgency
become a line of JSON in FILE, which is there as soon as the desktop is. Ends with its bus.
"""
import json, sys

from jeepney import HeaderFields, MessageType, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection

bus = open_dbus_connection(bus="SESSION")
bus.send_and_get_reply(message_bus.RequestName("org.freedesktop.Notifications"))
out = open(sys.argv[1], "w", buffering=1)
while True:
    call = bus.receive()
    if call.header.message_type != MessageType.method_call:
        continue
    member = call.header.fields[HeaderFields.member]
    if member == "GetServerInformation":
        bus.send(new_method_return(call, "ssss", ("tests", "backupnizza", "1", "1.2")))
    elif member == "GetCapabilities":
        bus.send(new_method_return(call, "as", (["body", "body-markup"],)))
    elif member == "Notify":
        _, _, _, summary, body, _, hints, _ = call.body
        out.write(json.dumps([summary, body, hints["urgency"][1]]) + "\n")
        bus.send(new_method_return(call, "u", (1,)))
