"""How the worker starts, and how it ends."""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import os
import signal
import socket
import sys
import tempfile
import time
import unittest

from worker_client import (
    CLOSE,
    CLOSE_ERROR,
    CREDIT,
    DATA,
    EXEC,
    HELLO,
    PY3,
    RECONFIGURE,
    TERMINATE,
    WINDOW,
    LiveTest,
    dump,
    frame,
    hello,
    load,
    status,
    text_type,
)


class Starting(LiveTest):
    def test_hello_says_what_runs(self):
        client = self.start()
        said = client.hello
        self.assertEqual(said["protocol"], 1)
        self.assertEqual(said["implementation"], "pure")
        self.assertEqual(said["version_info"], tuple(sys.version_info))
        self.assertEqual(said["pid"], client.process.pid)
        self.assertEqual(said["cwd"], os.getcwd())
        self.assertEqual(said["platform"], sys.platform)
        self.assertEqual(said["features"], [])
        self.assertTrue(os.path.exists(said["executable"]))
        for value in list(said) + [said["executable"], said["version_info"][3]]:
            self.assertEqual(type(value), text_type)
        self.assertEqual(client.terminate(), 0)

    def test_environment_of_the_code(self):
        client = self.start(greeting=hello(env={u"EXECNET_A": u"b c"}, dont_write_bytecode=True, nice=1))
        number = client.execute(
            """
            import os, sys
            names = [name for name in sorted(globals()) if name[:2] != "__"]
            channel.send((sys.argv, sys.path[0], os.environ["EXECNET_A"], sys.dont_write_bytecode, os.nice(0),
                          __name__, sys.stdin.read(), channel.gateway.id, names))
            """
        )
        got = client.receive(number)
        names = ["channel", "os", "sys"]
        expected = (["-c"], "", "b c", True, os.nice(0) + 1, "__channelexec__", "", "gw0", names)
        self.assertEqual(got, expected)
        client.closed(number)

    def test_chdir_is_made_when_missing(self):
        directory = os.path.realpath(tempfile.mkdtemp())
        client = self.start(greeting=hello(chdir=text_type(os.path.join(directory, "a", "b"))))
        self.assertEqual(client.hello["cwd"], os.path.join(directory, "a", "b"))
        os.removedirs(os.path.join(directory, "a", "b"))

    def test_what_cannot_be_applied_is_named(self):
        for changes, text in (
            ({"chdir": u"/dev/null/x"}, "chdir=/dev/null/x: "),
            ({"execmodel": u"fibers"}, "execmodel=fibers: ValueError: there are thread, main_thread_only, gevent"),
            ({"protocol": 2}, "protocol=2: ValueError: "),
            ({"env": {u"A": u"b\0"}}, "env:A="),
        ):
            client = self.start(greeting=hello(**changes))
            self.assertEqual(sorted(client.hello), ["error", "protocol"])
            self.assertIn(text, client.hello["error"])
            self.assertIs(client.read(), None)
            self.assertEqual(client.wait(), 1)

    def test_a_hello_that_is_none_ends_it(self):
        streams = hello(stdin=u"stderr"), hello(stdout=u"null"), hello(stderr=u"callback")
        for greeting in ({}, {u"protocol": 1}, [], hello(nice=u"x")) + streams:
            client = self.start(greeting=greeting, wait=False)
            self.assertEqual(client.take(1), b"")
            self.assertEqual(client.wait(), 1)
            self.assertIn("HELLO without a proper", client.captured(client.err))

    def test_stderr_is_taken_over_and_print_reaches_stdout(self):
        client = self.start()
        number = client.execute("import sys; print('out'); sys.stderr.write('err\\n')")
        client.closed(number)
        self.assertEqual(client.captured(client.out), "out\n")
        self.assertEqual(client.captured(client.err), "")
        self.assertEqual(client.captured(client.real_err), "err\n")

    def test_over_stdio_print_goes_to_stderr_and_stdin_is_empty(self):
        client = self.start(over_stdio=True)
        number = client.execute("import os, sys; print('out'); os.write(1, b'raw'); channel.send(sys.stdin.read())")
        self.assertEqual(client.receive(number), "")
        client.closed(number)
        self.assertEqual(client.captured(client.err), "out\nraw")
        self.assertEqual(client.terminate(), 0)

    def test_a_function_cannot_have_what_goes_to_stderr(self):
        client = self.start(over_stdio=True, greeting=hello(stdout=u"callback"))
        self.assertIn("a function for stdout: what stands before", client.hello["error"])
        self.assertEqual(client.wait(), 1)
        client = self.start(greeting=hello(stdout=u"callback"))
        client.closed(client.execute("print('out')"))
        self.assertEqual(client.captured(client.out), "out\n")

    def test_children_do_not_get_the_stream(self):
        client = self.start()
        number = client.execute(
            """
            import subprocess, sys
            code = "import os; print(sorted(int(fd) for fd in os.listdir('/proc/self/fd') if int(fd) > 2))"
            child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, close_fds=False)
            channel.send(child.communicate()[0].decode().strip())
            """
        )
        self.assertEqual(client.receive(number), "[3]")  # the listing itself


class Ending(LiveTest):
    def test_terminate_ends_an_idle_worker(self):
        client = self.start()
        number = client.execute(
            "import atexit; atexit.register(print, 'bye')"
            if PY3
            else "import atexit, os; atexit.register(os.write, 1, 'bye\\n')"
        )
        client.closed(number)
        self.assertEqual(client.terminate(), 0)
        self.assertEqual(client.captured(client.out), "bye\n")
        self.assertEqual(client.captured(client.real_err), "")

    def test_terminate_ends_receiving_code_which_can_still_send(self):
        client = self.start()
        source = "channel.send('ready'); list(channel); channel.send('end')\nchannel.receive()"
        numbers = [client.execute(source), client.execute(source)]
        self.assertEqual(sorted(client.read()[:2] for _ in numbers), [(DATA, number) for number in numbers])
        client.send(TERMINATE, 0)
        got = sorted(client.read() for _ in range(4))
        data = dump("end")
        self.assertEqual(got, [(DATA, number, data) for number in numbers] + [(CLOSE, n, b"") for n in numbers])
        self.assertEqual(client.wait(), 0)

    def test_terminate_interrupts_code_that_goes_on(self):
        client = self.start()
        number = client.execute("channel.send(1)\nimport time\ntime.sleep(1000)")
        client.receive(number)
        client.send(TERMINATE, 0)
        self.assertIn("KeyboardInterrupt", load(client.read()[2]))
        self.assertEqual(client.wait(), 0)

    def test_threads_that_code_has_left_do_not_keep_the_process_for_ever(self):
        client = self.start()
        number = client.execute(
            """
            import atexit, os, threading
            atexit.register(os.write, 1, b"bye")
            threading.Thread(target=threading.Event().wait).start()
            """
        )
        client.closed(number)
        self.assertEqual(client.terminate(), 0)
        self.assertEqual(client.captured(client.out), "bye")
        self.assertIn("KeyboardInterrupt", client.captured(client.real_err))

    def test_what_waits_for_a_thread_sleeps_and_notices_the_end_of_the_stream(self):
        client = self.start()
        number = client.execute(
            """
            import sys, threading

            main, = [thread for thread in threading.enumerate() if thread.name == "MainThread"]
            sys.kept = channel.gateway.newchannel()

            def work():
                main.join()
                sys.kept.send("main thread has ended")
                threading.Event().wait()

            threading.Thread(target=work).start()
            """
        )
        client.closed(number)
        client.send(TERMINATE, 0)
        self.assertEqual(client.read()[2], dump("main thread has ended"))
        client.wait_until_asleep()
        begin = time.time()
        client.socket.shutdown(socket.SHUT_RDWR)
        self.assertIn(client.wait(), (0, 1, -signal.SIGINT))
        self.assertLess(time.time() - begin, 3)  # it had five seconds

    def test_the_end_of_the_stream_ends_whatever_runs(self):
        for source in (
            "channel.send(1)\nchannel.receive()",
            "channel.send(1)\nwhile True: pass",
            "import time\nchannel.send(1)\nwhile True:\n    try: time.sleep(1000)\n    except BaseException: pass",
            "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nchannel.send(1)\nsignal.pause()",
            "import threading\nthreading.Thread(target=threading.Event().wait).start()\nchannel.send(1)",
            "while True: channel.send(1)",
        ):
            client = self.start()
            number = client.execute(source)
            self.assertEqual(client.receive(number), 1)
            client.socket.shutdown(socket.SHUT_RDWR)
            # SIGINT is what it sends itself when, on a busy machine, its end takes longer than it should.
            self.assertIn(client.wait(), (0, 1, -signal.SIGINT))

    def test_protocol_errors_end_it_with_a_message(self):
        for data, text in (
            (frame(99, 1), "unknown frame type 99"),
            (frame(DATA, 0, dump(1)), "out of place"),
            (frame(HELLO, 0, dump(1)), "once"),
            (frame(DATA, 1, b"?"), "unknown opcode 63 at byte 0"),
            (frame(EXEC, 1, dump((1, None, 1, None, {}))), "EXEC without"),
            (frame(EXEC, 1, dump(5)), "EXEC without"),
            (frame(EXEC, 2, dump((u"1", None, 1, None, {}))), "not of the coordinator's making"),
            (frame(CLOSE_ERROR, 1, dump(5)), "a string was expected"),
            (frame(RECONFIGURE, 0, dump(5)), "two booleans"),
            (frame(WINDOW, 1, dump(0)), "WINDOW without a number of bytes"),
            (frame(WINDOW, 1, dump(True)), "WINDOW without a number of bytes"),
            (frame(WINDOW, 1, dump(u"8M")), "WINDOW without a number of bytes"),
            (frame(WINDOW, 1, dump(5)) + frame(CREDIT, 1, credit=1), "credit for more bytes than are on their way"),
        ):
            client = self.start()
            client.write(data)
            self.assertIs(client.read(), None)
            self.assertIn(client.wait(), (1, -signal.SIGINT))
            self.assertIn(text, client.captured(client.err))

    def test_an_exit_handler_that_fails_is_shown_and_no_failure(self):
        client = self.start()
        number = client.execute("import atexit; atexit.register(int, 'x')")
        client.closed(number)
        self.assertEqual(client.terminate(), 0)
        self.assertIn("ValueError: invalid literal for int()", client.captured(client.real_err))

    def test_python_2_does_not_empty_its_modules_while_there_are_threads(self):
        client = self.start()
        number = client.execute(
            """
            import os, sys

            class Late(object):
                def __del__(self, write=os.write):
                    write(1, b"emptied")

            sys.late = Late()
            """
        )
        client.closed(number)
        self.assertEqual(client.terminate(), 0)
        empties = PY3 and not hasattr(sys, "pypy_version_info")  # PyPy never does
        self.assertEqual(client.captured(client.out), "emptied" if empties else "")
        self.assertEqual(client.captured(client.real_err), "")

    def test_end_markers_come_also_if_the_main_thread_is_awake_at_the_end(self):
        client = self.start()
        number = client.execute(
            """
            import os, time

            connection = channel.gateway._connection
            executor, finish = connection.on_call_done.__self__, connection.finish

            def finish_late():
                executor.wake()
                time.sleep(0.2)
                finish()

            connection.finish = finish_late
            connection.kept = channel.gateway.newchannel()
            connection.kept.setcallback(lambda item: os.write(1, item), endmarker=b"end")
            """
        )
        client.closed(number)
        client.send(TERMINATE, 0)
        self.assertEqual(client.wait(), 0)
        self.assertEqual(client.captured(client.out), "end")

    def test_status_is_answered_while_code_runs(self):
        client = self.start()
        number = client.execute("channel.send(1)\nwhile True: pass")
        client.receive(number)
        self.assertEqual(client.status(), status(1))


if __name__ == "__main__":
    unittest.main()
