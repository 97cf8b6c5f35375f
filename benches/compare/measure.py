"""Processes on their core, and what the kernel says of them."""
import os, shutil, signal, socket, statistics, subprocess, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CORES = os.cpu_count() or 1
PROXY_CORE = str(1 % CORES)
LOAD_CORE = "0"


def on_core(core):
    return ["taskset", "-c", core] if shutil.which("taskset") and CORES > 1 else []


class Process:
    """A process on one core, with its output in a file of its folder."""

    def __init__(self, argv, core, folder, env=None):
        self.log_path = os.path.join(folder, "log")
        self.log = open(self.log_path, "ab")
        self.p = subprocess.Popen(on_core(core) + argv, cwd=folder, stdout=self.log, stderr=self.log,
                                  stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})
        self.pid = self.p.pid

    def tree(self):
        """Its pid and those of its descendants."""
        out, todo = [], [self.pid]
        while todo:
            pid = todo.pop()
            out.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/children") as f:
                        todo += [int(c) for c in f.read().split()]
            except OSError:
                pass
        return out

    def cpu(self):
        """Seconds of CPU so far, exact (schedstat), the kernel's work for it included."""
        total = 0
        for pid in self.tree():
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                        total += int(f.read().split()[0])
            except OSError:
                pass
        return total / 1e9

    def memory(self):
        """KiB, shared pages counted by their share (PSS)."""
        total = 0
        for pid in self.tree():
            try:
                with open(f"/proc/{pid}/smaps_rollup") as f:
                    total += sum(int(line.split()[1]) for line in f if line.startswith("Pss:"))
            except OSError:
                pass
        return total

    def stop(self):
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
            try:
                self.p.wait(5)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port, process, limit=20.0):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if process.p.poll() is not None:
            with open(process.log_path) as f:
                raise RuntimeError(f"ended with {process.p.returncode} before it listened: {f.read()[-500:]}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
            return
        except OSError:
            time.sleep(0.005)
    raise RuntimeError("nothing listens")


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def show(title, unit, rounds, bars=None):
    """`rounds`: a list of {proxy: figure}; `bars`: {peer: highest ratio wanted}."""
    print(f"\n{title} ({len(rounds)} rounds; {unit}; lower is better)")
    for name in rounds[0]:
        values = [r[name] for r in rounds if name in r]
        line = f"  {name:9} median {statistics.median(values):9.2f}   {min(values):.2f} – {max(values):.2f}"
        ratios = [r["llmproxy"] / r[name] for r in rounds if r.get(name)] if name != "llmproxy" else []
        if ratios:
            ratio = statistics.median(ratios)
            line += f"   llmproxy ÷ {name}: {ratio:.2f} ({min(ratios):.2f} – {max(ratios):.2f})"
            if bars and name in bars:
                line += f"   bar {bars[name]}: {'held' if ratio <= bars[name] else 'MISSED'}"
        print(line, flush=True)
    absolute = (bars or {}).get("absolute")
    if absolute is not None:
        value = statistics.median([r["llmproxy"] for r in rounds])
        print(f"  bar {absolute} {unit}: {'held' if value <= absolute else 'MISSED'}", flush=True)
