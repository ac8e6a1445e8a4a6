"""A double of MongoDB: what a client meets at a replica set, without a server.

``wire`` is the protocol, ``answers`` the errors as a server words them, ``replica_set`` keeps
documents and answers by a script; ``nothing``, a process of its own, acknowledges what is inserted
and keeps none of it.
"""
