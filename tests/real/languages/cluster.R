# Workers of their own programs, reached over TCP on the loopback.
library(parallel)
rounds <- as.integer(commandArgs(TRUE)[1])
cluster <- makeCluster(2, type = "PSOCK", rscript_args = "--vanilla")
clusterSetRNGStream(cluster, 7)
clusterEvalQ(cluster, { library(stats); mine <- 0 })
for (step in seq_len(rounds)) {
  sums <- parLapply(cluster, 1:6, function(i) { mine <<- mine + i; Sys.sleep(0.03); c(mine, sum(rnorm(5000, i))) })
  cat(step, sprintf("%.9g", unlist(sums)), "\n")
}
stopCluster(cluster)
