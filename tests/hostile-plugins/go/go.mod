module hostile

go 1.26

require flashjob.nbfc.io/plugin v0.0.0

require go.bytecodealliance.org/pkg v0.2.3 // indirect

replace flashjob.nbfc.io/plugin => ../../../plugin-sdk/go
