"""Java: of equal lookups at one time only one gets to libc, and the agent tells of that one."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from agent import Agent, of, only
from program import Program

from ebpfdns.lab.faults import FAULTS

if TYPE_CHECKING:
    from ebpfdns.lab.namespace import Sandbox


def has_compiler() -> bool:
    """Whether java can run a source file: without its compiler it takes classes only."""
    if shutil.which("java") is None:
        return False
    modules = subprocess.run(["java", "--list-modules"], capture_output=True, text=True, check=False)
    return "jdk.compiler@" in modules.stdout


pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root"),
    pytest.mark.skipif(not has_compiler(), reason="apt-get install openjdk-17-jdk-headless"),
]

THREADS = 3
#: Waits for its go with libc's resolver loaded; then looks one name up in several threads at once.
NAMES = """
import java.net.InetAddress;
import java.nio.file.*;

public class Names {
  public static void main(String[] words) throws Exception {
    InetAddress.getByName("127.0.0.1");
    try { InetAddress.getByName("localhost"); } catch (java.net.UnknownHostException none) { }
    Files.createFile(Path.of(words[1]));
    while (!Files.exists(Path.of(words[3]))) Thread.sleep(2);
    Thread[] threads = new Thread[%d];
    for (int i = 0; i < threads.length; i++) {
      threads[i] = new Thread(() -> {
        try { InetAddress.getByName("www.lab.test"); } catch (java.net.UnknownHostException none) { }
      });
      threads[i].start();
    }
    for (Thread thread : threads) thread.join();
    System.out.println("{}");
  }
}
"""


def test_equal_lookups_are_one(sandbox: Sandbox) -> None:
    """Three threads that want one name are one lookup in libc: nothing can be told of those that wait."""
    source = sandbox.new_file("source").with_suffix(".java")
    source.write_text(NAMES % THREADS)
    java = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", source]
    with FAULTS["silent"].setup(sandbox, options="timeout:1 attempts:1"):
        program = Program(sandbox, java)
        with Agent("attach", "--pid", program.pid, "--stuck-after", "300ms", "--all") as agent:
            program.go()
            lines = agent.finish()
    ended = only(lines, "lookup")
    assert ended["lookup"]["name"] == "www.lab.test"
    assert ended["lookup"]["resolver"] == "glibc"
    assert ended["lookup"]["error"]["type"] == "EAI_AGAIN"
    assert ended["cause"]["id"] == "ns_silent"
    assert {line["cause"]["id"] for line in of(lines, "lookup_stuck")} == {"ns_silent"}
    assert lines[-1]["stats"]["lookups"]["started"] == 1
