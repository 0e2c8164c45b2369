#!/bin/sh
# A case of OpenFOAM: the flow in a box whose lid moves, over so many steps of time, for two processes.
mkdir -p 0 constant system
header() { printf 'FoamFile { version 2.0; format ascii; class %s; object %s; }\n' "$1" "$2"; }
{
    header dictionary blockMeshDict
    cat <<'END'
scale 0.1;
vertices ((0 0 0) (1 0 0) (1 1 0) (0 1 0) (0 0 0.4) (1 0 0.4) (1 1 0.4) (0 1 0.4));
blocks (hex (0 1 2 3 4 5 6 7) (50 50 20) simpleGrading (1 1 1));
boundary
(
    lid { type wall; faces ((3 7 6 2)); }
    walls { type wall; faces ((0 4 7 3) (2 6 5 1) (1 5 4 0) (0 3 2 1) (4 5 6 7)); }
);
END
} >system/blockMeshDict
{
    header dictionary controlDict
    cat <<END
application icoFoam;
startFrom startTime;
startTime 0;
stopAt endTime;
endTime $1e-3;
deltaT 1e-3;
writeControl timeStep;
writeInterval $1;
writeFormat ascii;
writePrecision 10;
timePrecision 8;
runTimeModifiable true;
END
} >system/controlDict
{
    header dictionary fvSchemes
    cat <<'END'
ddtSchemes { default Euler; }
gradSchemes { default Gauss linear; }
divSchemes { default none; div(phi,U) Gauss linear; }
laplacianSchemes { default Gauss linear orthogonal; }
interpolationSchemes { default linear; }
snGradSchemes { default orthogonal; }
END
} >system/fvSchemes
{
    header dictionary fvSolution
    cat <<'END'
solvers
{
    p { solver PCG; preconditioner DIC; tolerance 1e-06; relTol 0.05; }
    pFinal { $p; relTol 0; }
    U { solver smoothSolver; smoother symGaussSeidel; tolerance 1e-05; relTol 0; }
}
PISO { nCorrectors 2; nNonOrthogonalCorrectors 0; pRefCell 0; pRefValue 0; }
END
} >system/fvSolution
{
    header dictionary decomposeParDict
    echo 'numberOfSubdomains 2; method simple; coeffs { n (2 1 1); delta 0.001; }'
} >system/decomposeParDict
{
    header dictionary transportProperties
    echo 'nu [0 2 -1 0 0 0 0] 0.01;'
} >constant/transportProperties
{
    header volVectorField U
    cat <<'END'
dimensions [0 1 -1 0 0 0 0];
internalField uniform (0 0 0);
boundaryField { lid { type fixedValue; value uniform (1 0 0); } walls { type noSlip; } }
END
} >0/U
{
    header volScalarField p
    cat <<'END'
dimensions [0 2 -2 0 0 0 0];
internalField uniform 0;
boundaryField { lid { type zeroGradient; } walls { type zeroGradient; } }
END
} >0/p
