"""What the doctor says of machines like this one and unlike it."""

import json

import pytest

from bigkeras import doctor, gpus, runtime
from bigkeras.gpus import Build, Gpu

CUDA = Build(True, "12.5.1", "9", ("sm_60", "sm_70", "sm_80", "sm_89", "compute_90"))
H200 = Gpu("NVIDIA H200", "570.86.15", "143771 MiB", "9.0")


def marks(checks):
    return {check["what"]: check["mark"] for check in checks}


def test_the_report_of_this_machine_is_json_and_text(run_cli):
    done = run_cli("doctor", "--json")
    assert done.rc == 0, done.stderr
    result = json.loads(done.stdout)
    assert marks(result["checks"])["TensorFlow"] == "ok"
    assert "CPU:0" in result["devices"]
    assert set(result["plan"]) >= {"strategy", "replicas", "precision", "reason"}
    text = doctor.text(result)
    assert "✓ TensorFlow" in text and f"strategy {result['plan']['strategy']}" in text


def test_a_foreign_backend_fails_in_one_line(monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setattr(doctor, "look_at_tensorflow", lambda flags: {"error": "not looked at"})
    assert doctor.main() == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if "Keras backend" in line)
    assert "torch" in line and "KERAS_BACKEND=tensorflow" in line


def test_jax_trains_and_is_a_warning_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: name)
    line = doctor.check_backend("jax")
    assert line["mark"] == "warn" and "evaluation and export need tensorflow" in line["say"]
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert doctor.check_backend("jax")["mark"] == "fail"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    found = doctor.look_at_tensorflow(["avx"])  # what TensorFlow would take is no plan there
    assert "error" not in found and found["plan"] is None


def test_the_backend_of_keras_json_counts_where_no_variable_is_set(tmp_path, monkeypatch):
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    assert runtime.keras_backend({"KERAS_HOME": str(tmp_path)}) == "torch"
    assert runtime.keras_backend({"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "tensorflow"}) == "tensorflow"
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert runtime.keras_backend({"KERAS_HOME": f"~/{tmp_path.name}"}) == "torch"
    (tmp_path / "keras.json").write_text("not JSON")
    assert runtime.keras_backend({"KERAS_HOME": str(tmp_path)}) == "tensorflow"


@pytest.mark.parametrize(
    ("build", "missing", "environment", "words"),
    [
        (Build(False), [], {}, ("without CUDA", "pip install '.[gpu]'")),
        (CUDA, [], {"CUDA_VISIBLE_DEVICES": ""}, ('CUDA_VISIBLE_DEVICES=""', "unset")),
        (CUDA, [], {"CUDA_VISIBLE_DEVICES": "-1"}, ("hides them",)),
        (CUDA, ["libcudnn.so.9"], {}, ("libcudnn.so.9", "pip install '.[gpu]'")),
        (CUDA, [], {"CUDA_VISIBLE_DEVICES": "7"}, ("CUDA_VISIBLE_DEVICES=7",)),
        (CUDA, [], {}, ("TF_CPP_MIN_LOG_LEVEL=0",)),
    ],
)
def test_why_a_gpu_is_not_seen(build, missing, environment, words):
    (reason,) = gpus.reasons([H200], build, missing, environment)
    assert all(word in reason for word in words)


def test_a_gpu_without_a_driver_an_old_driver_and_an_old_gpu():
    assert "no NVIDIA driver" in gpus.reasons([Gpu("NVIDIA GPU at 0000:01:00.0")], CUDA, [], {})[0]
    old = gpus.reasons([Gpu("NVIDIA T4", "470.57.02", None, "7.5")], CUDA, [], {})
    assert "470.57.02 is too old for CUDA 12.5.1: 525.60 or newer" in old[0]
    kepler = gpus.reasons([Gpu("Tesla K80", "550.1.1", None, "3.7")], CUDA, [], {})
    assert "compute capability 3.7; TensorFlow's begin at 6.0" in kepler[0]


def test_gpus_are_found_without_the_drivers_programs(tmp_path):
    device = tmp_path / "pci" / "0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    assert gpus._from_pci(tmp_path / "pci") == [Gpu("NVIDIA GPU at 0000:01:00.0")]
    card = tmp_path / "nvidia" / "gpus" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA A100\nIRQ:   11\n")
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"
    (tmp_path / "nvidia" / "version").write_text(version)
    assert gpus._from_proc(tmp_path / "nvidia") == [Gpu("NVIDIA A100", "535.104.05")]


def test_libraries_of_pips_nvidia_packages_are_found(tmp_path):
    build = Build(True, "99.1", "77")
    assert gpus.missing_libraries(build, [tmp_path]) == ["libcudart.so.99", "libcublas.so.99", "libcudnn.so.77"]
    folder = tmp_path / "cudnn" / "lib"
    folder.mkdir(parents=True)
    (folder / "libcudnn.so.77").touch()
    assert gpus.missing_libraries(build, [tmp_path]) == ["libcudart.so.99", "libcublas.so.99"]


def test_a_gpu_that_tensorflow_sees_is_fine_and_one_that_it_misses_is_not(monkeypatch):
    seen = {"version": "2.21.0", "devices": ["CPU:0", "GPU:0"], "build": CUDA}
    assert doctor.check_gpus([H200], seen)["mark"] == "ok"
    assert "sees 1 of 2" in doctor.check_gpus([H200, H200], seen)["say"]
    monkeypatch.setattr(gpus, "missing_libraries", lambda build: ["libcudart.so.12"])
    line = doctor.check_gpus([H200], {**seen, "devices": ["CPU:0"]})
    assert line["mark"] == "warn" and "libcudart.so.12" in line["say"]


def test_packages_that_differ_from_the_tested_ones_are_named():
    packages = {
        "keras": {"installed": "3.15.1", "tested": "==3.15.1"},
        "h5py": {"installed": "3.16.0", "tested": "==3.14.0"},
        "numpy": {"installed": None, "tested": "==2.4.6"},
    }
    checks = list(doctor.check_packages(packages))
    assert marks(checks) == {"h5py": "warn", "numpy": "fail", "packages": "ok"}
    assert "3.16.0; tested with ==3.14.0" in checks[0]["say"]


def test_without_a_checkout_the_metadata_tells_the_tested_versions(tmp_path, monkeypatch):
    lines = ["keras<3.16,>=3.15", "tensorflow[and-cuda]<2.22; extra == 'gpu'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: lines)
    assert doctor.look_at_packages(tmp_path / "none.txt")["keras"]["tested"] == "<3.16,>=3.15"


def test_tensorflow_by_another_package_is_tensorflow(monkeypatch):
    def version(name):
        if name != "tensorflow-tpu":
            raise doctor.metadata.PackageNotFoundError(name)
        return "2.20.0"

    monkeypatch.setattr(doctor.metadata, "version", version)
    found = {name: values["installed"] for name, values in doctor.look_at_packages().items()}
    assert found.pop("tensorflow") == "2.20.0" and set(found.values()) == {None}


@pytest.mark.parametrize(("version", "mark"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "fail")])
def test_python_versions(version, mark):
    assert doctor.check_python(version)["mark"] == mark


def test_a_processor_without_avx_is_told_before_tensorflow_kills_the_process(monkeypatch):
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    assert "AVX" in doctor.look_at_tensorflow(["sse4_2"])["error"]


def test_what_a_processor_has_is_told_from_what_is_not_known(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    assert doctor._cpu_flags(path) is None
    path.write_text("processor : 0\nflags\t\t: fpu sse4_2\n")
    assert doctor._cpu_flags(path) == []
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    assert "AVX" in doctor.look_at_tensorflow(doctor._cpu_flags(path))["error"]
    path.write_text("processor : 0\nflags\t\t: fpu avx sse4_2 avx2\n")
    assert doctor._cpu_flags(path) == ["avx", "avx2"]
    path.write_text("processor : 0\n")
    assert doctor._cpu_flags(path) is None
    assert "error" not in doctor.look_at_tensorflow(None)


@pytest.mark.parametrize("cluster", ["{", '{"cluster": {"worker": "host:1"}, "task": {"type": "worker", "index": 0}}'])
def test_a_cluster_that_cannot_be_has_a_line_of_its_own_and_tensorflow_is_fine(cluster, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", cluster)
    (line,) = doctor.check_cluster("tensorflow")
    assert (line["what"], line["mark"]) == ("TF_CONFIG", "fail") and "not of the form" in line["say"]
    found = doctor.look_at_tensorflow(["avx"])
    assert doctor.check_tensorflow(found)["mark"] == "ok" and found["plan"] is None
    assert list(doctor.check_cluster("jax")) == []
    monkeypatch.delenv("TF_CONFIG")
    assert list(doctor.check_cluster("tensorflow")) == []


def test_a_tensorflow_that_cannot_be_imported_fails_with_its_reason(monkeypatch):
    def broken():
        raise ImportError("libsomething.so: cannot open shared object file")

    monkeypatch.setattr(doctor.remarks, "import_tensorflow", broken)
    line = doctor.check_tensorflow(doctor.look_at_tensorflow(["avx"]))
    assert line["mark"] == "fail" and "libsomething.so" in line["say"]


def test_little_memory_and_disk_are_a_warning():
    machine = {"cores": 2, "cpu_flags": [], "memory_gb": 8, "memory_available_gb": 1.5, "disk_free_gb": 0.5}
    assert marks(doctor.check_machine(machine)) == {"CPU": "ok", "memory": "warn", "disk": "warn"}
