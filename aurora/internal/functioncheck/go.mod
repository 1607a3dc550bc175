module github.com/aurorapgx/aurorapgx/aurora/internal/functioncheck

go 1.26.0

require github.com/aurorapgx/aurorapgx v0.0.0

replace github.com/aurorapgx/aurorapgx => ../../..
