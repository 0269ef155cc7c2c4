"""The tf.distribute strategies, each made once in a process: of this machine's devices, of many workers, of a TPU."""

import functools
import os
from typing import Any

from bigkeras.runtime import Machine, MachineError, chosen, cluster, role

# Where workers under Slurm listen: so many ports for each of so many jobs, below those that systems hand out.
FIRST_PORT, JOBS, PORTS = 10_000, 200, 100


def strategy(machine: Machine) -> Any:
    """The tf.distribute strategy of a Machine. Raises MachineError where it cannot be had."""
    import tensorflow as tf

    name = chosen(machine)
    if machine.tpu and name != "tpu":
        raise MachineError(f"--tpu {machine.tpu} is for --strategy tpu; this run takes {name}")
    if name == "one" and (machine.replicas or 1) != 1:
        raise MachineError(f"--replicas {machine.replicas}: this run takes one device; --strategy mirrored takes more")
    if name == "one":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return _mirrored(tuple(_mirrored_devices(machine.replicas)))
    if machine.replicas:
        raise MachineError(f"--replicas is for mirrored; {name} takes every device")
    if name == "parameter_server":
        return _parameter_server()
    return _multiworker() if name == "multiworker" else _tpu(machine.tpu)


def check_jobs() -> None:
    """Raises MachineError where a cluster has no chief, worker or server: those that are there would wait for ever."""
    jobs = cluster()
    missing = [job for job in ("chief", "worker", "ps") if job not in jobs]
    if missing or role() not in ("chief", "worker", "ps"):
        raise MachineError(
            f"--strategy parameter_server: TF_CONFIG names no job {missing[0] if missing else 'of this process'}; "
            "scripts/launch_workers N --servers M -- bigkeras train … starts a chief, N workers and M servers here"
        )


@functools.cache
def _parameter_server() -> Any:
    """For the chief of a cluster with workers and parameter servers; waits until all are there."""
    import tensorflow as tf

    check_jobs()
    try:
        made = tf.distribute.ParameterServerStrategy(tf.distribute.cluster_resolver.TFConfigClusterResolver())
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise MachineError(f"--strategy parameter_server: {str(error).splitlines()[0]}") from None
    if made.num_replicas_in_sync > 1:
        raise MachineError(
            f"--strategy parameter_server: a worker takes one GPU, and these see {made.num_replicas_in_sync}: "
            "CUDA_VISIBLE_DEVICES gives each its own; start a worker for each GPU"
        )
    return made


@functools.cache
def _multiworker() -> Any:
    """Waits until all workers are there. To be called before TensorFlow's first operation."""
    import tensorflow as tf

    resolver = worker_resolver()
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except (RuntimeError, tf.errors.OpError) as error:
        raise MachineError(f"--strategy multiworker: {str(error).splitlines()[0]}") from None


def worker_resolver() -> Any:
    """Who the workers are, by TF_CONFIG or Slurm: a cluster resolver. Raises MachineError where neither says."""
    import tensorflow as tf

    resolvers = tf.distribute.cluster_resolver
    if "ps" in cluster():
        raise MachineError("--strategy multiworker: TF_CONFIG names the job ps, which parameter_server has")
    if cluster():
        return resolvers.TFConfigClusterResolver()
    if "SLURM_STEP_NODELIST" in os.environ:
        return _slurm_resolver()
    raise MachineError(
        "--strategy multiworker: TF_CONFIG is not set, and this is no step of Slurm; "
        "scripts/launch_workers N -- bigkeras train … starts N workers here"
    )


def _slurm_resolver() -> Any:
    """The workers of this step of Slurm, a task each, with the GPUs that this one sees.

    TensorFlow's own resolver sorts the nodes by name, where Slurm numbers the tasks in the order of its list (n9 before
    n10); it takes the same ports for every job on a node, and has to be told of GPUs.
    """
    import tensorflow as tf
    from tensorflow.python.distribute.cluster_resolver import slurm_cluster_resolver as slurm

    said = {name: os.environ.get(f"SLURM_{name}", "") for name in ("STEP_NODELIST", "STEP_TASKS_PER_NODE", "PROCID")}
    try:
        hosts = slurm.expand_hostlist(said["STEP_NODELIST"])
        tasks = slurm.expand_tasks_per_node(said["STEP_TASKS_PER_NODE"])
        number = int(said["PROCID"])
        port = FIRST_PORT + int(os.environ.get("SLURM_JOB_ID", "0")) % JOBS * PORTS
        workers = [f"{host}:{port + i}" for host, count in zip(hosts, tasks, strict=True) for i in range(count)]
    except ValueError as error:
        told = ", ".join(f"SLURM_{name}={value!r}" for name, value in said.items())
        raise MachineError(f"--strategy multiworker: {told}: {str(error).splitlines()[0]}; set TF_CONFIG") from None
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": workers}),
        task_type="worker",
        task_id=number,
        num_accelerators={"GPU": len(tf.config.get_visible_devices("GPU"))},
        rpc_layer="grpc",
    )


@functools.cache
def _tpu(name: str | None) -> Any:
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name or os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MachineError(
            f"--strategy tpu: no TPU answers ({reason}); it needs a TPU-VM with the tensorflow-tpu package, "
            "or its name as --tpu NAME"
        ) from None


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> Any:
    """One object for the process: a second one over the same devices counts its collective operations from the start
    again, and TensorFlow takes them for those of the first."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(devices)


def _mirrored_devices(replicas: int | None) -> list[str]:
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU") if tf.config.list_physical_devices("GPU") else []
    if gpus:
        wanted = replicas or len(gpus)
        if wanted > len(gpus):
            raise MachineError(f"--replicas {wanted}: there are {len(gpus)} GPUs")
        return [d.name for d in gpus[:wanted]]
    wanted = replicas or 2
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu)
    if not configured or len(configured) < wanted:
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * wanted)
        except RuntimeError:
            have = len(tf.config.list_logical_devices("CPU"))
            raise MachineError(f"--replicas {wanted}: TensorFlow already runs with {have} CPU device(s)") from None
    return [f"CPU:{i}" for i in range(wanted)]
