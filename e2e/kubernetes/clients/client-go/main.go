// Package main is what programs do with client-go: usage: client-go KUBECONFIG NAMESPACE POD. Prints what it saw as JSON.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
)

var found = map[string]any{}

func main() {
	ctx, done := context.WithTimeout(context.Background(), 60*time.Second)
	defer done()
	if err := run(ctx, os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig, namespace, pod string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	binary := rest.CopyConfig(config)
	binary.ContentType = "application/vnd.kubernetes.protobuf"
	binary.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(binary)
	if err != nil {
		return err
	}
	steps := []struct {
		name string
		do   func() error
	}{
		{"discovery", func() error { return discover(client) }},
		{"metadata", func() error { return readMetadata(ctx, config, namespace) }},
		{"informer", func() error { return inform(ctx, client, namespace) }},
		{"dynamic", func() error { return apply(ctx, config, namespace) }},
		{"election", func() error { return elect(ctx, client, namespace) }},
		{"logs", func() error { return logs(ctx, client, namespace, pod) }},
		{"exec", func() error { return commands(ctx, config, client, namespace, pod) }},
		{"portforward", func() error { return forward(config, client, namespace, pod) }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// Aggregated discovery in one request, and the groups' own documents.
func discover(client kubernetes.Interface) error {
	_, lists, err := client.Discovery().ServerGroupsAndResources()
	if err != nil {
		return err
	}
	for _, list := range lists {
		for _, one := range list.APIResources {
			if list.GroupVersion == "v1" && one.Name == "pods/exec" {
				found["discovered"] = one.Kind
			}
		}
	}
	_, err = client.Discovery().OpenAPIV3().Paths()
	return err
}

// Objects of which the server sends the metadata alone.
func readMetadata(ctx context.Context, config *rest.Config, namespace string) error {
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	pods := schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	list, err := client.Resource(pods).Namespace(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	names := []string{}
	for _, one := range list.Items {
		names = append(names, one.Name)
	}
	found["metadata"] = names
	return nil
}

// A shared informer over protobuf: a list, or a watch that begins with what is there, and what changes afterwards.
func inform(ctx context.Context, client kubernetes.Interface, namespace string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	informer := factory.Core().V1().ConfigMaps().Informer()
	events := make(chan string, 100)
	note := func(verb string, object any) {
		if one, isMap := object.(*corev1.ConfigMap); isMap && one.Name == "informed" {
			events <- verb + " " + one.Data["value"]
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { note("added", object) },
		UpdateFunc: func(_, object any) { note("updated", object) },
		DeleteFunc: func(object any) { note("deleted", object) },
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return errors.New("the cache was not filled")
	}
	maps := client.CoreV1().ConfigMaps(namespace)
	given := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "informed"}, Data: map[string]string{"value": "one"}}
	seen := []string{}
	next := func() error {
		select {
		case event := <-events:
			seen = append(seen, event)
			return nil
		case <-ctx.Done():
			return fmt.Errorf("no event after %v", seen)
		}
	}
	made, err := maps.Create(ctx, given, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if err := next(); err != nil {
		return err
	}
	made.Data["value"] = "two"
	if _, err := maps.Update(ctx, made, metav1.UpdateOptions{}); err != nil {
		return err
	}
	if err := next(); err != nil {
		return err
	}
	if err := maps.Delete(ctx, "informed", metav1.DeleteOptions{}); err != nil {
		return err
	}
	if err := next(); err != nil {
		return err
	}
	found["informed"] = seen
	return nil
}

// The dynamic client: server-side apply, a merge patch, a conflict, a deletion.
func apply(ctx context.Context, config *rest.Config, namespace string) error {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	maps := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(namespace)
	object := func(value string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": "applied", "namespace": namespace},
			"data":     map[string]any{"value": value},
		}}
	}
	if _, err := maps.Apply(ctx, "applied", object("one"), metav1.ApplyOptions{FieldManager: "first"}); err != nil {
		return err
	}
	_, conflict := maps.Apply(ctx, "applied", object("two"), metav1.ApplyOptions{FieldManager: "second"})
	patch := []byte(`{"data":{"other":"three"}}`)
	after, err := maps.Patch(ctx, "applied", types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return err
	}
	data, _, _ := unstructured.NestedStringMap(after.Object, "data")
	found["applied"] = data
	found["conflict"] = conflict != nil && strings.Contains(conflict.Error(), `conflict with "first"`)
	return maps.Delete(ctx, "applied", metav1.DeleteOptions{})
}

// A leader is elected by a Lease, holds it for a while and gives it back.
func elect(ctx context.Context, client kubernetes.Interface, namespace string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Name: "led", Namespace: namespace},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: "me"},
	}
	leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock: lock, ReleaseOnCancel: true,
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: time.Second,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { stop() },
			OnStoppedLeading: func() { found["led"] = true },
		},
	})
	return client.CoordinationV1().Leases(namespace).Delete(context.Background(), "led", metav1.DeleteOptions{})
}

// Logs as they come, ended by the reader.
func logs(ctx context.Context, client kubernetes.Interface, namespace, pod string) error {
	stream, err := client.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	line := make([]byte, len("started"))
	if _, err := io.ReadFull(stream, line); err != nil {
		return err
	}
	found["log"] = string(line)
	return nil
}

// Commands over WebSocket, over SPDY, and over the one after the other was refused, as kubectl does it.
func commands(ctx context.Context, config *rest.Config, client kubernetes.Interface, namespace, pod string) error {
	results := map[string]any{}
	found["commands"] = results
	for _, dialect := range []string{"websocket", "spdy", "fallback"} {
		exec := func(argv ...string) (string, string, error) {
			request := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec")
			options := &corev1.PodExecOptions{Command: argv, Stdin: true, Stdout: true, Stderr: true}
			url := request.VersionedParams(options, scheme.ParameterCodec).URL()
			socket, err := remotecommand.NewWebSocketExecutor(config, "GET", url.String())
			if err != nil {
				return "", "", err
			}
			old, err := remotecommand.NewSPDYExecutor(config, "POST", url)
			if err != nil {
				return "", "", err
			}
			executor := map[string]remotecommand.Executor{"websocket": socket, "spdy": old}[dialect]
			if dialect == "fallback" {
				if executor, err = remotecommand.NewFallbackExecutor(socket, old, httpstream.IsUpgradeFailure); err != nil {
					return "", "", err
				}
			}
			var stdout, stderr bytes.Buffer
			streams := remotecommand.StreamOptions{Stdin: strings.NewReader("typed\n"), Stdout: &stdout, Stderr: &stderr}
			err = executor.StreamWithContext(ctx, streams)
			return stdout.String(), stderr.String(), err
		}
		stdout, stderr, err := exec("sh", "-c", "read -r line; echo $line; echo err >&2; exit 7")
		var exit utilexec.CodeExitError
		if !errors.As(err, &exit) {
			return fmt.Errorf("%s: %w", dialect, err)
		}
		_, _, refused := exec("cat", "/etc/passwd")
		if refused == nil {
			return fmt.Errorf("%s: was not refused", dialect)
		}
		results[dialect] = map[string]any{
			"out": stdout, "err": stderr, "code": exit.Code, "refused": refused.Error(),
		}
	}
	return nil
}

// A port over a WebSocket's tunnel and over SPDY, with an answer through each.
func forward(config *rest.Config, client kubernetes.Interface, namespace, pod string) error {
	url := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	tunnel, err := portforward.NewSPDYOverWebsocketDialer(url, config)
	if err != nil {
		return err
	}
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return err
	}
	old := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", url)
	answers := map[string]string{}
	for name, dialer := range map[string]httpstream.Dialer{"tunnel": tunnel, "spdy": old} {
		stop, ready := make(chan struct{}), make(chan struct{})
		failed := make(chan error, 1)
		forwarder, err := portforward.New(dialer, []string{"0:7878"}, stop, ready, io.Discard, io.Discard)
		if err != nil {
			return err
		}
		go func() { failed <- forwarder.ForwardPorts() }()
		select {
		case err := <-failed:
			return err
		case <-ready:
		}
		ports, err := forwarder.GetPorts()
		if err != nil {
			return err
		}
		if answers[name], err = answer(ports[0].Local); err != nil {
			return err
		}
		close(stop)
		if err := <-failed; err != nil {
			return err
		}
	}
	found["forwarded"] = answers
	return nil
}

func answer(port uint16) (string, error) {
	connection, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 10*time.Second)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", err
	}
	if _, err := connection.Write([]byte("GET /nothing HTTP/1.0\r\n\r\n")); err != nil {
		return "", err
	}
	all, err := io.ReadAll(connection)
	line, _, _ := strings.Cut(string(all), "/")
	return line, err
}
