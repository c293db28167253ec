"""The pure worker: the far end of an execnet gateway, which needs nothing but Python.

The build joins these modules to one source; cmake/JoinWorker.cmake has their order, in which each imports from
those before it. The coordinator sends that, compressed, to a bare interpreter (CPython 2.7, 3.6 and later, PyPy),
which runs it and calls serve(). What is said then is in docs/wire_format.md.

Threads:
  main         runs the code of remote_exec when it is free; the last to leave. Where it waits for one
               item after the other, it reads them itself: see Incoming
  receiver     reads the stream, decodes, and never writes: a full stream must not stop the reading
  poster       writes what the receiver and __del__ have to say
  dispatcher   calls the callbacks of all channels, in the order of arrival; started by the first
  exec N       runs code of remote_exec while the main thread is taken
  grace N      refuses code that waits too long for the main thread (main_thread_only)
  open N, ...  see to the processes that are started or forked for other gateways: OpenedProcess

With gevent or eventlet the main thread runs code and callbacks in greenlets instead. It does not write
either, then: the poster does.

One lock, Connection.lock, guards what is known of the channels. It is never held while a thread
waits, writes or runs code that is not ours. Channel.__del__ may run anywhere, also where the lock
is held, and so takes no lock at all.
"""
