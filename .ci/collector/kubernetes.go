//go:build kubernetes

package main

import "github.com/open-telemetry/opentelemetry-collector-contrib/processor/k8sattributesprocessor"

// Brings Kubernetes' whole client along, which takes as long to build as all the rest.
func init() {
	processors = append(processors, k8sattributesprocessor.NewFactory())
}
