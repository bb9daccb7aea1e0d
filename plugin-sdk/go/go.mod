module flashjob.nbfc.io/plugin

go 1.26

require go.bytecodealliance.org/pkg v0.2.3
