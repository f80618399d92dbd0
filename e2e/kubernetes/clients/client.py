"""What programs do with Python's Kubernetes client: usage: client.py KUBECONFIG NAMESPACE."""
import json
import sys

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

config.load_kube_config(config_file=sys.argv[1])
namespace = sys.argv[2]
api = client.CoreV1Api()
found = {"pods": [pod.metadata.name for pod in api.list_namespaced_pod(namespace).items]}
for event in watch.Watch().stream(api.list_namespaced_pod, namespace, timeout_seconds=5):
    found["watched"] = f"{event['type']} {event['object'].metadata.name}"
    break


def run(*command):
    """A command in the pod, with its streams apart."""
    return stream(
        api.connect_get_namespaced_pod_exec, "shell", namespace, container="main", command=list(command),
        stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False)


running = run("sh", "-c", "read -r line; echo $line; echo err >&2; exit 7")
running.write_stdin("out\n")
running.run_forever(timeout=20)
found |= {"out": running.read_stdout(), "err": running.read_stderr(), "code": running.returncode}
found["log"] = "started" in api.read_namespaced_pod_log("shell", namespace, container="main")
api.create_namespaced_config_map(namespace, {"metadata": {"name": "python"}, "data": {"a": "1"}})
found["patched"] = api.patch_namespaced_config_map("python", namespace, {"data": {"b": "2"}}).data
tunnel = portforward(api.connect_get_namespaced_pod_portforward, "shell", namespace, ports="7979").socket(7979)
tunnel.settimeout(20)
tunnel.sendall(b"GET /nothing HTTP/1.0\r\n\r\n")
answer = b""
while piece := tunnel.recv(4096):
    answer += piece
found["forwarded"] = answer[:4].decode()
tunnel.close()
try:
    run("cat", "/etc/passwd")
except ApiException as error:
    found["refused"] = str(error)
print(json.dumps(found))
