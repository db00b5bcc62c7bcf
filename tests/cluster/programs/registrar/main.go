// Registrar stands in for node-driver-registrar, which is not to be had as a Go module: it tells the kubelet
// where the driver's socket is, with the flags that the chart sets, and ends when the kubelet refuses the driver.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

var (
	csiAddress       = flag.String("csi-address", "/run/csi/socket", "the driver's socket, as this container sees it")
	registrationPath = flag.String("kubelet-registration-path", "", "the driver's socket, as the kubelet sees it")
	pluginPath       = flag.String("plugin-registration-path", "/registration", "folder that the kubelet watches")
	timeout          = flag.Duration("timeout", time.Second, "for one call to the driver")
	httpEndpoint     = flag.String("http-endpoint", "", "address of /healthz, which is good while the kubelet can find us")
	_                = flag.Int("v", 0, "how much to log; there is one level only")
)

type registrar struct {
	registration.UnsafeRegistrationServer
	driver string
	ended  chan error
}

func (r registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: r.driver, Endpoint: *registrationPath, SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (r registrar) NotifyRegistrationStatus(
	_ context.Context, status *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	if status.PluginRegistered {
		log.Printf("the kubelet took %s", r.driver)
	} else {
		r.ended <- fmt.Errorf("the kubelet refused %s: %s", r.driver, status.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}

// driverName asks until the driver answers: both containers of a pod start at once.
func driverName() (string, error) {
	connection, err := grpc.NewClient("unix://"+*csiAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	defer connection.Close()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), *timeout)
		info, err := csi.NewIdentityClient(connection).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
		cancel()
		if err == nil {
			return info.Name, nil
		}
		log.Printf("the driver does not answer yet: %v", err)
	}
}

func run() error {
	if *registrationPath == "" {
		return errors.New("wanted --kubelet-registration-path")
	}
	driver, err := driverName()
	if err != nil {
		return err
	}
	socket := filepath.Join(*pluginPath, driver+"-reg.sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	ended := make(chan error, 3) // one for each that may end us: nobody waits for room
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, registrar{driver: driver, ended: ended})
	go func() { ended <- server.Serve(listener) }()
	if *httpEndpoint != "" {
		go func() { ended <- serveHealth(socket) }()
	}
	log.Printf("%s awaits the kubelet at %s", driver, socket)
	return <-ended
}

func serveHealth(socket string) error {
	http.HandleFunc("/healthz", func(answer http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat(socket); err != nil {
			http.Error(answer, err.Error(), http.StatusInternalServerError)
		}
	})
	return http.ListenAndServe(*httpEndpoint, nil)
}

func main() {
	flag.Parse()
	log.Fatal(run())
}
